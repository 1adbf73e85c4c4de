"""How many tokens a step computes, and how large the KV cache is."""

from __future__ import annotations

from millstream.model.loading import memory
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import KVCache, LayerShape, bytes_per_token
from millstream.settings import Settings

_CPU_STEP_TOKENS = 256
_CUDA_STEP_TOKENS = 4096


def step_tokens(loaded: LoadedModel, settings: Settings) -> int:
    """Tokens of one step, prompt chunks included; at least one for every running request."""
    default = _CPU_STEP_TOKENS if loaded.device.type == "cpu" else _CUDA_STEP_TOKENS
    wanted = settings.max_batch_prefill_tokens or default
    return max(wanted, settings.max_concurrent_requests)


def make_cache(loaded: LoadedModel, settings: Settings, shapes: dict[int, LayerShape]) -> KVCache:
    """A cache as large as settings or free memory say, but not larger than can be used."""
    blocks_per_request = -(-loaded.max_context // settings.block_size)
    block_bytes = settings.block_size * bytes_per_token(shapes, loaded.dtype)
    num_blocks = memory.num_blocks(
        device=loaded.device,
        block_bytes=block_bytes,
        wanted_bytes=settings.kv_cache_memory,
        step_bytes=memory.step_bytes(
            loaded.model.config.get_text_config(),
            num_tokens=step_tokens(loaded, settings),
            num_rows=settings.max_concurrent_requests,
            block_bytes=block_bytes,
            max_blocks=blocks_per_request,
        ),
        useful_blocks=settings.max_concurrent_requests * blocks_per_request,
    )
    return KVCache(
        shapes,
        num_blocks=num_blocks,
        block_size=settings.block_size,
        dtype=loaded.dtype,
        device=loaded.device,
    )
