"""Decode steps replayed from captured graphs: the host queues one launch instead of hundreds.

Rules:
1. A graph is a step of a fixed number of rows over fixed memory. A step takes the smallest one that
   holds it; rows for nobody read the padding block and write to the spare block.
2. Only steps in which every chunk is one token that is sampled come from graphs.
3. Nothing in a graph depends on lengths on the host: see the backends.
4. Tokens that the step before draws are taken from static memory, too: each row says by an index
   where in that step its token is.
5. A model that cannot be captured (it makes the host wait, or asks it) runs as it is, and the log
   says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cuda.staging import Staging, stage_decodes
from millstream.model.paging.backend import AttentionBackend, PagedAttention
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import StepBefore
from millstream.model.paging.packer import Packer
from millstream.model.paging.step import PagedStep, Span
from millstream.model.states.state_cache import StateCache
from millstream.model.states.state_step import StateStep

_SMALL = (1, 2, 4, 8)
_STEP = 8
_LARGEST = 256


class Recording(Protocol):
    """A captured computation. output: what it wrote last; the memory stays the same."""

    output: Tensor

    def replay(self) -> None: ...


Record = Callable[[Callable[[], Tensor]], Recording]


def buckets(max_rows: int) -> list[int]:
    """Row counts to capture, ascending: the last holds every step up to `max_rows` or 256."""
    largest = min(max_rows, _LARGEST)
    sizes = [size for size in _SMALL if size < largest]
    sizes += range(2 * _STEP, largest, _STEP)
    return [*sizes, largest]


def can_replay(plan: Plan) -> bool:
    """Whether the plan is what graphs hold. No such chunk scores tokens of its prompt, and where
    the model has states, each goes on from one."""
    return all(
        len(chunk.tokens) == 1
        and chunk.is_last
        and not (chunk.states and chunk.states[0].source is None)
        for chunk in plan.chunks
    )


class DecodeGraphs:
    """The graphs of one model over one cache. Mutated by `capture()` only."""

    def __init__(
        self,
        *,
        forward: Callable[..., Tensor],
        cache: KVCache,
        packer: Packer,
        staging: Staging,
        backend: AttentionBackend,
        max_rows: int,
        max_blocks: int,
        device: torch.device,
        states: StateCache | None = None,
    ) -> None:
        """staging: what the packer sends by; backend: one that can be captured; max_blocks: of the
        longest sequence; states: of a model whose layers keep some."""
        self._forward, self._cache, self._packer = forward, cache, packer
        self._staging, self._backend = staging, backend
        self._sizes = buckets(max_rows)
        largest = self._sizes[-1]
        # Token ids, positions, slots, and which token of the step before a row begins with, or -1;
        # with states, also the slots that are read and written.
        self._states = states
        height = 4 if states is None else 6
        width = largest + largest % 2  # rows begin at 16 bytes: see rule 3 of triton_attention
        self._inputs = torch.zeros(height, width, dtype=torch.int64, device=device)
        self._inputs[2] = cache.spare_block * cache.block_size
        self._inputs[3] = -1
        if states is not None:
            self._inputs[4:] = states.spare_slot
        self._tokens_before = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self._tables = torch.full(
            (largest, max_blocks), cache.padding_block, dtype=torch.int32, device=device
        )
        self._rows = torch.arange(largest + 1, device=device)
        self._firsts = self._rows.to(torch.int32)
        self._recordings: dict[int, Recording] = {}
        self.num_replays = 0

    @property
    def sizes(self) -> list[int]:
        """Row counts that were captured."""
        return sorted(self._recordings)

    @torch.inference_mode()
    def capture(self, record: Record) -> None:
        """Captures the largest step first: the smaller ones find their memory in its pool."""
        for size in reversed(self._sizes):
            self._recordings[size] = record(lambda size=size: self._compute(size))  # type: ignore[misc]

    def logits(self, plan: Plan, before: StepBefore | None = None) -> Tensor | None:
        """Logits [rows, vocab]; None if no graph holds the plan. before: draws what it lacks."""
        count = len(plan.chunks)
        size = next((size for size in self._sizes if size >= count), None)
        if size is None or size not in self._recordings or not can_replay(plan):
            return None
        sources = np.full(count, -1)
        if before is not None:
            if len(before.request_ids) > len(self._tokens_before):
                return None
            unknown, rows = before.rows_of(plan)
            sources[unknown] = rows
            if unknown:
                self._tokens_before[: len(before.request_ids)].copy_(before.tokens())
        inputs, tables = stage_decodes(
            self._packer.lay_out(plan),
            size,
            cache=self._cache,
            staging=self._staging,
            sources=sources,
            states=self._states,
        )
        self._inputs[:, :size].copy_(inputs)
        self._tables[:size, : tables.shape[1]].copy_(tables)
        recording = self._recordings[size]
        recording.replay()
        self.num_replays += 1
        # A copy: the next replay may be queued before everything that reads this one's is.
        return recording.output[:count].clone()

    def _compute(self, size: int) -> Tensor:
        """The step of `size` rows over the static memory; this is what is captured."""
        known_ids, positions, slots, sources = self._inputs[:4, :size]
        # Where there is no token, what is computed from token 0 is discarded.
        ids_before = self._tokens_before[sources.clamp(min=0)].clamp_(min=0)
        ids = torch.where(sources < 0, known_ids, ids_before)
        span = Span(
            tables=self._tables[:size],
            starts=positions,
            ends=(positions + 1).to(torch.int32),
            firsts=self._firsts[: size + 1],
            longest=1,
            longest_context=self._tables.shape[1] * self._cache.block_size,
        )
        step = PagedStep(slots, decodes=span, prompts=None)
        states = None
        if self._states is not None:
            in_and_out = self._inputs[4:, :size]
            states = StateStep(self._states, size, (), in_and_out, self._firsts[: size + 1])
        batch = PagedAttention(step, self._cache, [self._backend], states)
        return self._forward(
            ids.unsqueeze(0), positions.unsqueeze(0), rows=self._rows[:size], batch=batch
        )
