"""A plan as arrays on the host: its tokens as the rows of one batch, chunk after chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import UNKNOWN_TOKEN, Plan
from millstream.model.paging.block_tables import BlockTables
from millstream.model.paging.step import HostSpan
from millstream.model.states.state_step import HostStates
from millstream.model.transfers import upload

Numbers = NDArray[np.int64]


class Layout(NamedTuple):
    """A step on the host. token_ids, positions, slots [T] int64: of each row of the batch; wanted
    [s + c] int64: rows that need logits, first those that are sampled, then those that score the
    prompt; decodes, prompts: what attention reads, None where there are no such rows; states: what
    layers with states read and write, None for a model without.

    slots: where the keys and values of the rows go, counted in tokens of the cache.
    """

    token_ids: Numbers
    positions: Numbers
    slots: Numbers
    wanted: Numbers
    decodes: HostSpan | None
    prompts: HostSpan | None
    states: HostStates | None = None


def lay_out(plan: Plan, tables: BlockTables, block_size: int) -> Layout:
    """The arrays of a plan's step. Brings `tables` up to date with its chunks."""
    chunks = plan.chunks
    rows = tables.rows(chunks)
    starts = np.array([chunk.start for chunk in chunks], dtype=np.int64)
    states = HostStates.of_chunks(chunks) if chunks[0].states else None
    if all(len(chunk.tokens) == 1 and chunk.is_last for chunk in chunks):  # nothing is scored
        token_ids = np.array([chunk.tokens[0] for chunk in chunks], dtype=np.int64)
        decodes = _lay_out_decodes(rows, starts, token_ids, tables, block_size)
        return decodes if states is None else decodes._replace(states=states)
    lengths = np.array([len(chunk.tokens) for chunk in chunks], dtype=np.int64)
    ends = np.cumsum(lengths)
    num_tokens = int(ends[-1])
    positions = np.arange(num_tokens) + np.repeat(starts - (ends - lengths), lengths)
    blocks = tables.blocks_at(np.repeat(rows, lengths), positions // block_size)
    is_sampled = np.array([chunk.sampling is not None for chunk in chunks], dtype=np.bool_)
    scored = [
        np.arange(chunk.scored.start, chunk.scored.stop) + end - (chunk.start + length)
        for chunk, end, length in zip(chunks, ends, lengths, strict=True)
        if chunk.score_from is not None
    ]

    def span(chunks: slice) -> HostSpan | None:
        if not len(rows[chunks]):
            return None
        longest = int((starts[chunks] + lengths[chunks]).max())
        blocks = tables.blocks(rows[chunks], -(-longest // block_size))
        return HostSpan.of_chunks(blocks, starts[chunks], lengths[chunks])

    num_decodes = int((np.append(lengths, 0) != 1).argmax())  # chunks of one token come first
    return Layout(
        token_ids=np.fromiter(
            chain.from_iterable([chunk.tokens for chunk in chunks]), np.int64, num_tokens
        ),
        positions=positions,
        slots=blocks * block_size + positions % block_size,
        wanted=np.concatenate([ends[is_sampled] - 1, *scored]),
        decodes=span(slice(0, num_decodes)),
        prompts=span(slice(num_decodes, len(rows))),
        states=states,
    )


def _lay_out_decodes(
    rows: Numbers, starts: Numbers, token_ids: Numbers, tables: BlockTables, block_size: int
) -> Layout:
    """The step of chunks that are all one token and all sampled, which most steps are."""
    count, longest = len(rows), int(starts.max()) + 1
    blocks = tables.blocks_at(rows, starts // block_size)
    decodes = HostSpan(
        tables=tables.blocks(rows, -(-longest // block_size)),
        starts=starts,
        ends=(starts + 1).astype(np.int32),
        firsts=np.arange(count + 1, dtype=np.int32),
        longest=1,
        longest_context=longest,
    )
    return Layout(
        token_ids=token_ids,
        positions=starts,
        slots=blocks * block_size + starts % block_size,
        wanted=np.arange(count),
        decodes=decodes,
        prompts=None,
    )


class StepBefore(NamedTuple):
    """The step that draws the tokens which a plan made ahead of them lacks.

    request_ids: of its drawn tokens, in order. tokens: gives them on their device, [m] int64,
    without waiting for it; negative where there is none.
    """

    request_ids: Sequence[int]
    tokens: Callable[[], Tensor]

    def rows_of(self, plan: Plan) -> tuple[list[int], list[int]]:
        """Which token ids of the plan are unknown, and which of the drawn tokens each one is."""
        # An unknown token is a chunk of its own, and chunks of one token come first: the number of
        # the chunk is the token's index.
        unknown = [i for i, chunk in enumerate(plan.chunks) if chunk.tokens[0] == UNKNOWN_TOKEN]
        if not unknown:
            return [], []
        row_of = {request_id: row for row, request_id in enumerate(self.request_ids)}
        return unknown, [row_of[plan.chunks[index].request_id] for index in unknown]


def fill_unknown_tokens(token_ids: Tensor, plan: Plan, before: StepBefore) -> None:
    """Replaces the plan's unknown tokens on the device.

    The host does not learn them first, so it need not wait for the step before. token_ids [n]
    int64: the packed tokens of the plan, changed in place. Where there is no token it becomes 0,
    because what is computed from it is discarded but must be computed from some token.
    """
    unknown, rows = before.rows_of(plan)
    if unknown:
        indices = upload(torch.tensor([unknown, rows]), token_ids.device)
        token_ids.index_copy_(0, indices[0], before.tokens()[indices[1]].clamp_(min=0))
