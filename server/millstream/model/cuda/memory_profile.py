"""How much memory graphs and steps are going to need, found out before the KV cache is made.

Captured graphs hold the addresses of the cache, so the cache has to exist before they are captured,
and what they take of the device is known only afterwards. So both are tried with a cache of one
block: a few graphs of each kind, the largest first, and the largest step that runs as it is. Graphs
share one pool of memory, which the largest ones determine; each further one costs what the driver
keeps for it, and what that is on average is taken for all that were not tried. Then everything is
given back.

Rule: whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from millstream.model.cpu.threads import Threads
from millstream.model.cuda.capture import CapturedExecution
from millstream.model.cuda.dense_prompts import DensePromptBackend
from millstream.model.cuda.device_memory import DeviceMemory
from millstream.model.cuda.graph_sizes import GraphSizes
from millstream.model.cuda.warm_up import StepPreparation
from millstream.model.execution import EagerExecution, Execution
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.packer import Packer
from millstream.model.states.state_cache import StateCache, StateKey, StateShape

log = logging.getLogger(__name__)

_OWN_STATES = 2  # of a sequence whose steps are planned ahead


@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """What is going to be needed beside weights and caches, in bytes. graphs: by captured steps and
    their draws; steps: by those that run as they are."""

    graphs: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledModel:
    """What a profile runs. forward, threads: as in EagerExecution; shapes: of each layer's keys and
    values, of `dtype`; state_shapes: of what other layers keep."""

    forward: Callable[..., Tensor]
    threads: Threads
    shapes: dict[int, LayerShape]
    state_shapes: Mapping[StateKey, StateShape]
    block_size: int
    dtype: torch.dtype


def profile_memory(
    model: ProfiledModel, preparation: StepPreparation, memory: DeviceMemory
) -> MemoryProfile | None:
    """Tries what `preparation` is going to do, and gives all memory back.

    None, with the reason in the log, where that fails, or where no attention backend can be
    captured: what gathers a sequence's keys for each layer needs more the longer the sequence is.
    """
    if not any(backend.is_capturable for backend in preparation.backends):
        return None
    started = time.monotonic()
    log.info("measuring what a few graphs and the largest step need, with a cache of one block")
    profile, before = None, memory.free_bytes()
    try:
        profile = _measure(model, preparation, memory)
    except Exception as error:  # last resort: models do what they like inside
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.warning("what graphs and steps need of the memory is not known: %s", reason)
    memory.release_unused()
    if profile is not None:
        log.info(
            "graphs will need %.2f GiB, other steps %.2f; measuring took %.1f s and keeps %.2f GiB",
            profile.graphs / 2**30,
            profile.steps / 2**30,
            time.monotonic() - started,
            (before - memory.free_bytes()) / 2**30,
        )
    return profile


def _measure(
    model: ProfiledModel, preparation: StepPreparation, memory: DeviceMemory
) -> MemoryProfile:
    device = preparation.device
    cache = KVCache(
        model.shapes, num_blocks=1, block_size=model.block_size, dtype=model.dtype, device=device
    )
    states = None
    if model.state_shapes:
        states = StateCache(
            model.state_shapes, num_slots=_OWN_STATES, device=device, num_own=_OWN_STATES
        )
    packer = Packer(cache, preparation.backends, preparation.staging, states=states)
    eager = EagerExecution(packer, model.forward, model.threads, plans_ahead=True)
    before = memory.free_bytes()
    sampling = replace(preparation, sizes=preparation.sizes.sample())
    execution = sampling.capture(eager, cache, states)
    captured = memory.free_bytes()
    preparation.run_largest_step(eager, cache, states)
    after = memory.free_bytes()
    return MemoryProfile(
        graphs=before - captured + bytes_of_others(execution, preparation.sizes),
        steps=captured - after + _gathered_bytes(model, preparation),
    )


def bytes_of_others(execution: Execution, sizes: GraphSizes) -> int:
    """An estimate of what the graphs of all sizes take beside those that an execution has."""
    if not isinstance(execution, CapturedExecution):
        return 0
    graphs, prompts = execution.graphs, execution.prompts
    others = further_bytes(graphs.graph_bytes, len(sizes.decodes))
    others += further_bytes(graphs.draw_bytes, 2 * len(sizes.decodes))
    if prompts is not None:
        others += further_bytes(prompts.graph_bytes, len(sizes.prompts))
    return others


def further_bytes(taken: Sequence[int], count: int) -> int:
    """What `count` graphs of a kind take beside some of them. taken: what those took, in the order
    of their capture; the first has taken the memory that they share."""
    further = taken[1:] or taken
    if not further:
        return 0
    return (count - len(taken)) * sum(further) // len(further)


def _gathered_bytes(model: ProfiledModel, preparation: StepPreparation) -> int:
    """The longest sequence's keys and values of one layer, where they are gathered."""
    if not isinstance(preparation.backends[0], DensePromptBackend):
        return 0
    widest = max((shape.num_elements for shape in model.shapes.values()), default=0)
    return preparation.max_context * widest * model.dtype.itemsize
