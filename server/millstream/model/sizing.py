"""How many tokens a step computes, and how large the caches are.

Keys, values and states take as much as the user asks for; or what a device has left beside all that
steps were measured to need; or, where nothing was measured, a share of the memory that is free once
the weights are loaded. The largest step must still fit beside them, and nothing is made that the
allowed number of requests could never use.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from transformers import PretrainedConfig

from millstream.errors import StartupError
from millstream.model.loading.memory import available_bytes
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import KVCache, LayerShape, bytes_per_token
from millstream.model.states.state_cache import (
    StateCache,
    StateKey,
    StateShape,
    bytes_per_slot,
)
from millstream.settings import Settings

log = logging.getLogger(__name__)

_CPU_STEP_TOKENS = range(256, 1025)
_CPU_STEP_BYTES = 128 * 2**20  # of activations
_CUDA_STEP_TOKENS = 4096
_RUNNING_PER_PROMPT_TOKEN = 4
_CPU_SHARE = 0.5
_CUDA_SHARE = 0.85
# Float32 copies of what a token has in hidden and intermediate width, all alive at once.
_ACTIVATION_BYTES = 4 * 12
# Of the memory of both caches where a model has both: what keys and values leave is worth a prefix.
_STATES_SHARE = 0.5
_SNAPSHOTS_PER_PLACE = 4
_WIDTHS = ("hidden_size", "intermediate_size")
_LOGIT_BYTES = 4 * 8  # logits, and what the sampler sorts and sums


def max_step_tokens(loaded: LoadedModel, settings: Settings) -> int:
    """Tokens of the largest step, prompt chunks included: as many as are wanted, and where a full
    house is larger, one for each who runs and a share for the prompts of those who come."""
    default = _CUDA_STEP_TOKENS
    if loaded.device.type == "cpu":
        fitting = _CPU_STEP_BYTES // _activation_bytes(loaded.model.config.get_text_config())
        default = min(max(fitting, _CPU_STEP_TOKENS[0]), _CPU_STEP_TOKENS[-1])
    wanted = settings.max_batch_prefill_tokens or default
    num_running = settings.max_concurrent_requests
    return max(wanted, num_running + -(-num_running // _RUNNING_PER_PROMPT_TOKEN))


def max_blocks_per_request(loaded: LoadedModel, settings: Settings) -> int:
    """Cache blocks of the longest sequence that the model can take."""
    return -(-loaded.max_context // settings.block_size)


def make_caches(
    loaded: LoadedModel,
    settings: Settings,
    shapes: dict[int, LayerShape],
    states: Mapping[StateKey, StateShape],
    *,
    needed_bytes: int | None = None,
) -> tuple[KVCache, StateCache | None]:
    """Caches as large as settings or free memory allow, but not larger than can be used.

    shapes: of the keys and values of each layer; states: of what other layers keep. needed_bytes:
    what else is going to be taken of the memory, where that was measured. Raises StartupError as
    `count_blocks()` does.
    """
    max_running = settings.max_concurrent_requests
    block_bytes = settings.block_size * bytes_per_token(shapes, loaded.dtype)
    if needed_bytes is None:
        budget = _estimated_budget(loaded, settings, block_bytes)
    else:
        budget = max(available_bytes(loaded.device) - needed_bytes, 0)
    slots = None
    if states:
        share = _STATES_SHARE if shapes else 1.0
        slots = make_states(int(budget * share), states, loaded.device, max_running=max_running)
        budget -= slots.num_bytes
    cache = KVCache(
        shapes,
        num_blocks=count_blocks(
            budget, block_bytes=block_bytes, useful_blocks=_useful_blocks(loaded, settings)
        ),
        block_size=settings.block_size,
        dtype=loaded.dtype,
        device=loaded.device,
    )
    return cache, slots


def make_states(
    budget: int,
    shapes: Mapping[StateKey, StateShape],
    device: torch.device,
    *,
    max_running: int,
) -> StateCache:
    """Slots for those that run and for snapshots; warns where not all may run that are allowed."""
    num_own = _own_slots(device)
    num_slots = count_slots(
        budget,
        slot_bytes=bytes_per_slot(shapes),
        needed=num_own,
        useful=max_running * (num_own + _SNAPSHOTS_PER_PLACE),
    )
    if num_slots < max_running * num_own:
        log.warning(
            "there is room for the states of %d requests, others wait", num_slots // num_own
        )
    return StateCache(shapes, num_slots=num_slots, device=device, num_own=num_own)


def is_memory_scarce(
    loaded: LoadedModel,
    settings: Settings,
    shapes: dict[int, LayerShape],
    states: Mapping[StateKey, StateShape],
) -> bool:
    """Whether caches that take the usual share of free memory are smaller than can be used.

    shapes, states: as `make_caches()` has them.
    """
    if settings.kv_cache_memory is not None:
        return False
    block_bytes = settings.block_size * bytes_per_token(shapes, loaded.dtype)
    budget = _estimated_budget(loaded, settings, block_bytes)
    places = settings.max_concurrent_requests * (_own_slots(loaded.device) + _SNAPSHOTS_PER_PLACE)
    slot_bytes = places * bytes_per_slot(states)
    share = _STATES_SHARE if shapes else 1.0
    return budget * share < slot_bytes or (
        budget - slot_bytes < _useful_blocks(loaded, settings) * block_bytes
    )


def _own_slots(device: torch.device) -> int:
    """Slots that one sequence needs while it runs: two where steps are planned ahead."""
    return 2 if device.type == "cuda" else 1


def _useful_blocks(loaded: LoadedModel, settings: Settings) -> int:
    """Blocks of as many of the longest sequences as may run."""
    return settings.max_concurrent_requests * max_blocks_per_request(loaded, settings)


def _estimated_budget(loaded: LoadedModel, settings: Settings, block_bytes: int) -> int:
    """Bytes for the caches where it is not measured what else takes memory."""
    return cache_budget(
        free_bytes=available_bytes(loaded.device),
        share=_CPU_SHARE if loaded.device.type == "cpu" else _CUDA_SHARE,
        wanted_bytes=settings.kv_cache_memory,
        step_bytes=_largest_step_bytes(
            loaded.model.config.get_text_config(),
            num_tokens=max_step_tokens(loaded, settings),
            num_rows=settings.max_concurrent_requests,
            block_bytes=block_bytes,
            max_blocks=max_blocks_per_request(loaded, settings),
        ),
    )


def _largest_step_bytes(
    config: PretrainedConfig, *, num_tokens: int, num_rows: int, block_bytes: int, max_blocks: int
) -> int:
    """An upper estimate of what the largest step takes beside weights and cache, in bytes.

    num_tokens: of the step; num_rows: sequences; max_blocks: blocks of the longest sequence.
    """
    activations = num_tokens * _activation_bytes(config)
    logits = num_rows * config.vocab_size * _LOGIT_BYTES
    # Attention gathers one layer's keys and values of a prompt's sequence at a time.
    gathered = 2 * max_blocks * block_bytes // config.num_hidden_layers
    return int(activations + logits + gathered)


def _activation_bytes(config: PretrainedConfig) -> int:
    """An upper estimate of what each token of a step takes."""
    # Some models give a width per layer.
    widths = [np.max(getattr(config, name, 0) or 0) for name in _WIDTHS]
    return max(int(sum(widths)), 1) * _ACTIVATION_BYTES


def cache_budget(
    *, free_bytes: int, share: float, wanted_bytes: int | None, step_bytes: int
) -> int:
    """Bytes for the caches: `wanted_bytes`, or this share of free memory.

    Raises StartupError when there is no room for `wanted_bytes` beside the `step_bytes` that the
    largest step needs.
    """
    if wanted_bytes is None:
        return max(min(int(free_bytes * share), free_bytes - step_bytes), 0)
    if wanted_bytes + step_bytes > free_bytes:
        raise StartupError(
            f"--kv-cache-memory: {wanted_bytes / 2**20:,.0f} MiB asked for and "
            f"{free_bytes / 2**20:,.0f} MiB are free, of which the largest step needs "
            f"{step_bytes / 2**20:,.0f} MiB; ask for less, or lower --max-batch-prefill-tokens"
        )
    return wanted_bytes


def count_blocks(budget: int, *, block_bytes: int, useful_blocks: int) -> int:
    """Blocks that fit in `budget` bytes, but never more than useful.

    block_bytes: 0 for a model without attention; its blocks only count tokens. Raises StartupError
    where there is no room for one block.
    """
    if not block_bytes:
        return useful_blocks
    count = min(budget // block_bytes, useful_blocks)
    if count < 1:
        raise StartupError(
            f"no room for the KV cache: one block takes {block_bytes / 2**20:,.1f} MiB and "
            f"{budget / 2**20:,.1f} MiB are left. Choose a smaller model or dtype."
        )
    return count


def count_slots(budget: int, *, slot_bytes: int, needed: int, useful: int) -> int:
    """Slots for states that fit in `budget` bytes, but never more than useful.

    Raises StartupError where there is no room for those that one sequence needs.
    """
    count = min(budget // slot_bytes, useful)
    if count < needed:
        raise StartupError(
            f"no room for the states of one sequence: they take {needed * slot_bytes / 2**20:,.1f} "
            f"MiB and {budget / 2**20:,.1f} MiB are left for states. Give --kv-cache-memory more, "
            "or choose a smaller model."
        )
    return count
