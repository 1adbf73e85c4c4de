"""A plan as arrays of the host: its tokens in one row, and where those of each chunk lie in it."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from millstream.core.plan import Plan
from millstream.model.paging.block_tables import BlockTables

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
