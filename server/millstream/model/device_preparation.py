"""What only a start on a CUDA device does: memory is measured, steps are captured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from millstream.model.cpu.threads import Threads
from millstream.model.cuda.device_memory import DeviceMemory
from millstream.model.cuda.graph_sizes import GraphSizes
from millstream.model.cuda.memory_profile import ProfiledModel, profile_memory
from millstream.model.cuda.staging import Staging
from millstream.model.cuda.warm_up import StepPreparation
from millstream.model.execution import EagerExecution, Execution
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.sizing import is_memory_scarce, max_step_tokens
from millstream.model.speedups import Speedups
from millstream.model.states.state_cache import StateCache, StateKey, StateShape
from millstream.settings import Settings


class DevicePreparation:
    """Prepares a device for one model, whose weights and ways to attend are there already."""

    def __init__(
        self,
        loaded: LoadedModel,
        settings: Settings,
        *,
        backends: list[AttentionBackend],
        staging: Staging,
        speedups: Speedups,
    ) -> None:
        """backends: of attention, best first; staging: what steps are sent by."""
        self._loaded, self._settings = loaded, settings
        max_tokens, is_cuda = max_step_tokens(loaded, settings), loaded.device.type == "cuda"
        sizes = GraphSizes()
        if speedups.graphs:
            sizes = GraphSizes.of(
                max_rows=settings.max_concurrent_requests,
                max_prompt_tokens=max_tokens if speedups.prompt_graphs else 0,
                draws=speedups.draw_graphs,
            )
        self._steps = StepPreparation(
            sizes=sizes,
            staging=staging,
            backends=backends,
            max_rows=settings.max_concurrent_requests,
            max_tokens=max_tokens,
            max_context=loaded.max_context,
            device=loaded.device,
            stream=torch.cuda.Stream() if is_cuda else None,  # type: ignore[no-untyped-call]
        )
        self._memory = DeviceMemory.of(loaded.device)

    def needed_bytes(
        self,
        forward: Callable[..., Tensor],
        threads: Threads,
        shapes: dict[int, LayerShape],
        state_shapes: Mapping[StateKey, StateShape],
    ) -> int | None:
        """What has to stay free beside the caches, measured; None where that is not asked, because
        the caches' size is told or limited by something else, or where it is not known.

        forward, threads: compute steps; shapes, state_shapes: of what the caches are for.
        """
        loaded, settings, memory = self._loaded, self._settings, self._memory
        if memory is None or not is_memory_scarce(loaded, settings, shapes, state_shapes):
            return None
        model = ProfiledModel(
            forward=forward,
            threads=threads,
            shapes=shapes,
            state_shapes=state_shapes,
            block_size=settings.block_size,
            dtype=loaded.dtype,
        )
        profile = profile_memory(model, self._steps, memory)
        return None if profile is None else profile.graphs + profile.steps + memory.reserve

    def prepare(
        self, eager: EagerExecution, cache: KVCache, states: StateCache | None
    ) -> Execution:
        """Does what `StepPreparation.prepare()` does, and logs where the device's memory went."""
        if self._memory is not None:
            self._memory.note("caches")
        execution = self._steps.prepare(eager, cache, states, self._memory)
        if self._memory is not None:
            self._memory.tell()
        return execution
