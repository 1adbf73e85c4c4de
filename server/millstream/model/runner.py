"""The model side of the engine: a plan in, sampled tokens out.

Rules: one forward call per step; logits only for rows that are sampled; the paged path has been
compared with the model's own attention before anything is served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from millstream.core.info import EngineInfo
from millstream.core.request import Plan
from millstream.model import memory
from millstream.model.batch import pack
from millstream.model.forward import Forward, probe_shapes
from millstream.model.kv_cache import KVCache, bytes_per_token
from millstream.model.loading import LoadedModel, load_model
from millstream.model.packing import pack_linears
from millstream.model.sampler import sample
from millstream.model.verify import own_logits, verify
from millstream.settings import Settings

log = logging.getLogger(__name__)

_CPU_STEP_TOKENS = 512
_CUDA_STEP_TOKENS = 4096

BACKEND = "sdpa-paged"


class ModelRunner:
    """Implements the engine loop's Runner over one loaded model and its KV cache."""

    def __init__(self, loaded: LoadedModel, settings: Settings) -> None:
        """Sizes the cache, compares the paged path with the model's own, warms up.

        Raises StartupError if memory does not suffice or the two differ.
        """
        self._device = loaded.device
        expected = own_logits(loaded)
        num_parameters = loaded.model.num_parameters()
        if loaded.device.type == "cpu" and (num_packed := pack_linears(loaded.model)):
            log.info("laid out the weights of %d linear layers for this CPU", num_packed)
        self._forward = Forward(loaded.model)
        self._cache = _make_cache(loaded, settings)
        num_blocks = self._cache.num_blocks
        max_context = min(loaded.max_context, num_blocks * settings.block_size)
        if max_context < loaded.max_context:
            log.warning("the KV cache holds %d tokens; longer requests are refused", max_context)
        default_step = _CPU_STEP_TOKENS if loaded.device.type == "cpu" else _CUDA_STEP_TOKENS
        step_tokens = settings.max_batch_prefill_tokens or default_step
        config = loaded.model.config.get_text_config()
        self.info = EngineInfo(
            architecture=type(loaded.model).__name__,
            num_parameters=num_parameters,
            device=_device_name(loaded.device),
            dtype=str(loaded.dtype).removeprefix("torch."),
            attention_backend=BACKEND,
            num_blocks=num_blocks,
            block_size=settings.block_size,
            kv_cache_bytes=self._cache.num_bytes,
            max_context=max_context,
            max_step_tokens=max(step_tokens, settings.max_concurrent_requests),
            vocab_size=config.vocab_size,
            stop_token_ids=loaded.stop_token_ids,
            temperature=loaded.temperature,
            top_k=loaded.top_k,
            top_p=loaded.top_p,
        )
        verify(loaded, self._cache, self._forward, expected)

    def step(self, plan: Plan) -> list[int]:
        """Computes the plan's tokens; one sampled token per chunk that has `sampling`.

        Returns INVALID_TOKEN where logits were not finite. Raises what torch raises.
        """
        logits = self.logits(plan)
        rows = [(c.sampling, c.num_generated) for c in plan.chunks if c.sampling is not None]
        return sample(logits, rows) if rows else []

    def scrub(self, blocks: Sequence[int]) -> None:
        """Clears cache blocks whose content cannot be trusted to be finite."""
        self._cache.scrub(blocks)

    @torch.inference_mode()
    def logits(self, plan: Plan) -> Tensor:
        """Logits [s, vocab] of the last token of every chunk that has `sampling`."""
        model_input = pack(plan, self._cache, self._device)
        return self._forward(
            model_input.input_ids,
            model_input.positions,
            rows=model_input.sampled,
            batch=model_input.batch,
        )


def _make_cache(loaded: LoadedModel, settings: Settings) -> KVCache:
    """A cache as large as settings or free memory say, but not larger than can be used."""
    shapes = probe_shapes(loaded.model, loaded.device)
    blocks_per_request = -(-loaded.max_context // settings.block_size)
    num_blocks = memory.num_blocks(
        device=loaded.device,
        block_bytes=settings.block_size * bytes_per_token(shapes, loaded.dtype),
        wanted_bytes=settings.kv_cache_memory,
        useful_blocks=settings.max_concurrent_requests * blocks_per_request,
    )
    return KVCache(
        shapes,
        num_blocks=num_blocks,
        block_size=settings.block_size,
        dtype=loaded.dtype,
        device=loaded.device,
    )


def build_runner(folder: Path, settings: Settings) -> Callable[[], ModelRunner]:
    """A factory that loads the model when called: in the engine, not where it is made."""
    return lambda: ModelRunner(load_model(folder, settings), settings)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
