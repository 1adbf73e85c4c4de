"""Decode steps replayed from captured graphs: the host queues one launch instead of hundreds.

Rules:
1. A graph is a step of a fixed number of rows over fixed memory. A step takes the smallest one that
   holds it; rows for nobody read the padding block and write to the spare block.
2. Only steps in which every chunk is one token that is sampled come from graphs.
3. Nothing in a graph depends on lengths on the host: see the backends.
4. Tokens that the step before draws are taken from static memory, too: each row says by an index
   where in that step its token is. Tokens that were not drawn there are copied there first.
5. Plain rows are drawn behind the logits, in graphs of their own: see draw_graphs.py.
6. A model that cannot be captured (it makes the host wait, or asks it) runs as it is, and the log
   says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cuda.draw_graphs import DrawGraphs
from millstream.model.cuda.recording import Record, Recording
from millstream.model.cuda.staging import Staging, stage_decodes
from millstream.model.execution import Computed
from millstream.model.paging.backend import AttentionBackend, PagedAttention
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import StepBefore
from millstream.model.paging.packer import Packer
from millstream.model.paging.step import PagedStep, Span
from millstream.model.sampling.ahead import Kind, kind_of, plain_rows, words_of_rows
from millstream.model.sampling.draws import Row
from millstream.model.sampling.numbers import NUM_WORDS
from millstream.model.states.state_cache import StateCache
from millstream.model.states.state_step import StateStep

_SMALL = (1, 2, 4, 8)
_STEP = 8
_LARGEST = 256


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
    """The graphs of one model over one cache. Mutated by its own methods only."""

    def __init__(
        self,
        *,
        forward: Callable[..., Tensor],
        cache: KVCache,
        packer: Packer,
        staging: Staging,
        backend: AttentionBackend,
        sizes: Sequence[int],
        max_rows: int,
        max_blocks: int,
        device: torch.device,
        states: StateCache | None = None,
        draws: bool = True,
    ) -> None:
        """staging: what the packer sends by; backend: one that can be captured; sizes: row counts
        to capture, ascending; max_rows: of a step; max_blocks: of the longest sequence; states: of
        a model whose layers keep some; draws: whether plain rows are to be drawn, too."""
        self._forward, self._cache, self._packer = forward, cache, packer
        self._staging, self._backend = staging, backend
        self._sizes = list(sizes)
        largest = self._sizes[-1]
        self._states = states
        self._inputs = _blank_inputs(largest, cache, states, device)
        self._tokens_before = torch.zeros(max_rows, dtype=torch.int64, device=device)
        # What the last step has drawn to that memory, if it has.
        self._next_tokens: Tensor | None = None
        # Steps that were captured write to its memory, whether or not its own graphs are used.
        self._draws: DrawGraphs | None = None
        self._draws_ahead = False
        if draws:
            self._draws = DrawGraphs(
                words=self._inputs[-NUM_WORDS:], next_tokens=self._tokens_before
            )
        self._tables = torch.full(
            (largest, max_blocks), cache.padding_block, dtype=torch.int32, device=device
        )
        self._rows = torch.arange(largest + 1, device=device)
        self._firsts = self._rows.to(torch.int32)
        self._logits: Tensor | None = None
        self._recordings: dict[int, Recording] = {}
        self.num_replays = 0

    @property
    def sizes(self) -> list[int]:
        """Row counts that were captured."""
        return sorted(self._recordings)

    @property
    def graph_bytes(self) -> list[int]:
        """What each step's graph took of the device's memory, in the order of their capture."""
        return [recording.num_bytes for recording in self._recordings.values()]

    @property
    def draw_bytes(self) -> list[int]:
        """What each graph that draws took of it, in the order of their capture."""
        return [] if self._draws is None else self._draws.graph_bytes

    @torch.inference_mode()
    def capture(self, record: Record) -> None:
        """Captures the largest step first: the smaller ones find their memory in its pool."""
        for size in reversed(self._sizes):
            self._recordings[size] = record(lambda size=size: self._compute(size))  # type: ignore[misc]

    def capture_draws(self, record: Record) -> None:
        """Captures how plain rows are drawn from what was captured, if they are to be. Until it is
        done, and where it raises, rows are not drawn in graphs."""
        if self._draws is not None:
            for size in reversed(self.sizes):
                self._draws.capture(record, self._recordings[size].output)
            self._draws_ahead = True

    def compute(self, plan: Plan, before: StepBefore | None = None) -> Computed | None:
        """Logits [rows, vocab], with the draws of plain rows behind them, if they are captured;
        None if no graph holds the plan. before: draws what it lacks."""
        count = len(plan.chunks)
        size = next((size for size in self._sizes if size >= count), None)
        if size is None or size not in self._recordings or not can_replay(plan):
            return None
        if before is not None and len(before.request_ids) > len(self._tokens_before):
            return None
        recording, draws = self._recordings[size], self._draws if self._draws_ahead else None
        rows: list[Row | None] = [None] * count
        if draws is not None:
            rows = plain_rows(plan.chunks, recording.output.shape[1])
        kind = kind_of(rows)
        words = None if kind is Kind.GREEDY else words_of_rows(rows, size)
        self._send(plan, before, size, words)
        recording.replay()
        self.num_replays += 1
        logits = recording.output[:count]
        if _reads_late(plan, rows, kind):
            # A copy: the next replay may be queued before everything that reads this one's is.
            logits = logits.clone()
        if draws is None:
            return Computed(logits)
        ahead = draws.draw(rows, size, kind)
        self._next_tokens = ahead.next_tokens
        return Computed(logits, ahead)

    def _send(
        self,
        plan: Plan,
        before: StepBefore | None,
        size: int,
        words: NDArray[np.int64] | None,
    ) -> None:
        """Puts a step of `size` rows into the static memory. words: what its rows are drawn by."""
        sources = np.full(len(plan.chunks), -1)
        if before is not None:
            unknown, drawn = before.rows_of(plan)
            sources[unknown] = drawn
            if unknown and (tokens := before.tokens()) is not self._next_tokens:
                self._tokens_before[: len(tokens)].copy_(tokens)
        inputs, tables = stage_decodes(
            self._packer.lay_out(plan),
            size,
            cache=self._cache,
            staging=self._staging,
            sources=sources,
            states=self._states,
            words=words,
        )
        self._inputs[: len(inputs), :size].copy_(inputs)
        self._tables[:size, : tables.shape[1]].copy_(tables)

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
            in_and_out = self._inputs[4:6, :size]
            states = StateStep(self._states, size, (), in_and_out, self._firsts[: size + 1])
        batch = PagedAttention(step, self._cache, [self._backend], states)
        logits = self._forward(
            ids.unsqueeze(0), positions.unsqueeze(0), rows=self._rows[:size], batch=batch
        )
        # All graphs write their logits to one place, or each would keep as much memory for them.
        if self._logits is None:
            self._logits = logits.new_empty(self._sizes[-1], logits.shape[1])
        logits = self._logits[:size].copy_(logits)
        if self._draws is not None:
            self._draws.take_best(logits)
        return logits


def _blank_inputs(
    count: int, cache: KVCache, states: StateCache | None, device: torch.device
) -> Tensor:
    """Memory for what `stage_decodes()` sends, with `count` rows or one more, all for nobody."""
    width = count + count % 2  # rows begin at 16 bytes: see rule 3 of triton_attention
    inputs = np.zeros((4 if states is None else 6, width), np.int64)
    inputs[2], inputs[3] = cache.spare_block * cache.block_size, -1
    if states is not None:
        inputs[4:] = states.spare_slot
    return torch.from_numpy(np.concatenate([inputs, words_of_rows([], width)])).to(device)


def _reads_late(plan: Plan, rows: list[Row | None], kind: Kind) -> bool:
    """Whether somebody may read the logits when the next step is under way: for log probabilities,
    for rows that are not plain, or for a filter that wants to see more."""
    asked = (chunk.request.sampling.logprobs is not None for chunk in plan.chunks)
    return kind is Kind.FILTERED or None in rows or any(asked)
