"""A plan on the device: the tensors of a forward call, and the step that its attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.paging.backend import AttentionBackend, PagedAttention
from millstream.model.paging.block_tables import BlockTables
from millstream.model.paging.gathered import GatheredBackend
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import Layout, lay_out
from millstream.model.paging.step import PagedStep
from millstream.model.states.state_cache import StateCache


class Uploader(Protocol):
    """Brings the arrays of one step after the other to the device that computes."""

    def begin(self) -> None:
        """Starts a step. The tensors of the step before are not read any more."""
        ...

    def put(self, array: NDArray[Any]) -> Tensor:
        """The array [...], int32 or int64, as a tensor that holds its values after flush()."""
        ...

    def flush(self) -> None:
        """Ends a step: everything that was put is on its way."""
        ...


class HostUploader:
    """An Uploader for steps that the host computes: nothing is copied."""

    def begin(self) -> None:
        """Does nothing."""

    def put(self, array: NDArray[Any]) -> Tensor:
        """A tensor over the memory of the array."""
        return torch.from_numpy(array)

    def flush(self) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """input_ids, positions [1, T] int64; wanted [s + c] int64: rows that need logits, first those
    that are sampled, then those that score the prompt; batch: for the layers' attention."""

    input_ids: Tensor
    positions: Tensor
    wanted: Tensor
    batch: PagedAttention


class Packer:
    """Packs each plan into one batch of rows. Made once for a cache.

    Mutated by its own methods only: block tables stay from step to step.
    """

    def __init__(
        self,
        cache: KVCache,
        backends: Sequence[AttentionBackend] = (),
        uploader: Uploader | None = None,
        *,
        states: StateCache | None = None,
    ) -> None:
        """backends: asked before plain torch, best first; uploader: of the device, by default for
        the CPU; states: of a model whose layers keep some."""
        self.backend_name = "+".join(backend.name for backend in backends) or GatheredBackend.name
        self._cache, self._states = cache, states
        self._backends = (*backends, GatheredBackend())
        self._uploader = uploader or HostUploader()
        self._tables = BlockTables(cache.padding_block)

    def lay_out(self, plan: Plan) -> Layout:
        """The arrays of a step, on the host."""
        return lay_out(plan, self._tables, self._cache.block_size)

    def pack(self, plan: Plan) -> ModelInput:
        """The tensors of a step, good until the next call."""
        layout, uploader = self.lay_out(plan), self._uploader
        put = uploader.put
        uploader.begin()
        input_ids, positions, wanted = map(put, (layout.token_ids, layout.positions, layout.wanted))
        step = PagedStep(
            slots=put(layout.slots),
            decodes=None if layout.decodes is None else layout.decodes.put(put),
            prompts=None if layout.prompts is None else layout.prompts.put(put),
        )
        states = None
        if layout.states is not None and self._states is not None:
            states = layout.states.put(put, self._states)
        uploader.flush()
        return ModelInput(
            input_ids=input_ids.unsqueeze(0),
            positions=positions.unsqueeze(0),
            wanted=wanted,
            batch=PagedAttention(step, self._cache, self._backends, states),
        )
