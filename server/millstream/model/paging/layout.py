"""A plan as arrays of the host: its tokens in one row, and where those of each chunk lie in it."""

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
from millstream.model.transfers import upload

Numbers = NDArray[np.int64]


class Layout(NamedTuple):
    """Of chunks: rows (of the block tables), starts, lengths, ends (of their rows in the batch); of
    tokens: token_ids, positions, slots; wanted: rows that need logits, see ModelInput.
    """

    rows: Numbers
    starts: Numbers
    lengths: Numbers
    ends: Numbers
    token_ids: Numbers
    positions: Numbers
    slots: Numbers
    wanted: Numbers

    @property
    def num_decodes(self) -> int:
        """Chunks of one token; they come first."""
        return int((np.append(self.lengths, 0) != 1).argmax())


def lay_out(plan: Plan, tables: BlockTables, block_size: int) -> Layout:
    """The plan's arrays. Brings `tables` up to date with its chunks."""
    chunks = plan.chunks
    rows = tables.rows(chunks)
    starts = np.array([chunk.start for chunk in chunks], dtype=np.int64)
    if all(len(chunk.tokens) == 1 and chunk.is_last for chunk in chunks):  # nothing is scored
        token_ids = np.array([chunk.tokens[0] for chunk in chunks], dtype=np.int64)
        return _decode_layout(rows, starts, token_ids, tables, block_size)
    lengths = np.array([len(chunk.tokens) for chunk in chunks], dtype=np.int64)
    ends = np.cumsum(lengths)
    num_tokens = int(ends[-1])
    positions = np.arange(num_tokens) + np.repeat(starts - (ends - lengths), lengths)
    blocks = tables.blocks_at(np.repeat(rows, lengths), positions // block_size)
    tokens = chain.from_iterable([chunk.tokens for chunk in chunks])
    is_sampled = np.array([chunk.sampling is not None for chunk in chunks], dtype=np.bool_)
    scored = [
        np.arange(chunk.scored.start, chunk.scored.stop) + end - (chunk.start + length)
        for chunk, end, length in zip(chunks, ends, lengths, strict=True)
        if chunk.score_from is not None
    ]
    return Layout(
        *(rows, starts, lengths, ends, np.fromiter(tokens, np.int64, num_tokens), positions),
        slots=blocks * block_size + positions % block_size,
        wanted=np.concatenate([ends[is_sampled] - 1, *scored]),
    )


def _decode_layout(
    rows: Numbers, starts: Numbers, token_ids: Numbers, tables: BlockTables, block_size: int
) -> Layout:
    """Of a step in which every chunk is one token and is sampled: most steps are."""
    numbers = np.arange(len(rows) + 1)
    return Layout(
        *(rows, starts, np.ones_like(rows), numbers[1:], token_ids, starts),
        slots=tables.blocks_at(rows, starts // block_size) * block_size + starts % block_size,
        wanted=numbers[:-1],
    )


def fill_unknown_tokens(
    token_ids: Tensor, plan: Plan, drawn: Callable[[], Tensor], request_ids: Sequence[int]
) -> None:
    """Replaces the plan's unknown tokens, which the step before it draws, on the device.

    The host does not learn them first, so it need not wait for that step. token_ids [n] int64: the
    packed tokens of the plan, changed in place. drawn: returns the tokens [m] int64 of the step
    before, one for each of `request_ids`. A negative one stands for no token; it becomes 0, because
    what is computed from it is discarded but must be computed from some token.
    """
    unknown = [i for i, chunk in enumerate(plan.chunks) if chunk.tokens[0] == UNKNOWN_TOKEN]
    if not unknown:
        return
    row_of = {request_id: row for row, request_id in enumerate(request_ids)}
    rows = [row_of[plan.chunks[index].request_id] for index in unknown]
    # An unknown token is a chunk of its own, and chunks of one token come first: the number of the
    # chunk is the token's index.
    indices = upload(torch.tensor([unknown, rows]), token_ids.device)
    token_ids.index_copy_(0, indices[0], drawn()[indices[1]].clamp_(min=0))
