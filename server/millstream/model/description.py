"""What a loaded model turned out to be, as the engine tells it."""

from __future__ import annotations

import logging

import torch

from millstream.core.status import EngineInfo
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.packer import Packer
from millstream.model.sizing import max_step_tokens
from millstream.model.states.state_cache import StateCache, bytes_per_slot
from millstream.settings import Settings

log = logging.getLogger(__name__)


def describe(
    loaded: LoadedModel,
    settings: Settings,
    cache: KVCache,
    *,
    num_parameters: int,
    packer: Packer,
    states: StateCache | None,
) -> EngineInfo:
    """The facts of a loaded model and its cache, for admission, defaults and people."""
    max_context = min(loaded.max_context, cache.num_blocks * settings.block_size)
    if max_context < loaded.max_context:
        log.warning("the KV cache holds %d tokens; longer requests are refused", max_context)
    config, device = loaded.model.config.get_text_config(), loaded.device
    return EngineInfo(
        architecture=type(loaded.model).__name__,
        num_parameters=num_parameters,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        dtype=str(loaded.dtype).removeprefix("torch."),
        quantization=loaded.quantization,
        attention_backend=packer.backend_name,
        num_blocks=cache.num_blocks,
        block_size=settings.block_size,
        kv_cache_bytes=cache.num_bytes,
        max_context=max_context,
        max_step_tokens=max_step_tokens(loaded, settings),
        target_itl_seconds=settings.target_itl_ms / 1000,
        vocab_size=config.vocab_size,
        stop_token_ids=loaded.stop_token_ids,
        defaults=loaded.defaults,
        num_states=0 if states is None else states.num_slots,
        state_bytes=0 if states is None else bytes_per_slot(states.shapes),
        own_states=1 if states is None else states.num_own,
    )
