"""Reductions over the vocabulary in two levels: blocks of 64 tokens, then inside one block.

A row of logits has up to a few hundred thousand numbers, and a step asks several questions of it:
the largest, the sum, the token at which a running sum passes a point. Each is answered for blocks
first, which is one fast pass over the row, and then inside the one block that matters.

Rules:
1. The result of a row depends on that row only, bit for bit: every kernel used here works row by
   row. (`sum` of one long row would be split among threads, and `exp` of a tensor may be rounded
   by position; softmax and sums of short blocks are not.)
2. A maximum per block costs a tenth of an argmax over the row, and serves all who ask for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from millstream.model.transfers import upload

T = TypeVar("T")

_BLOCK = 64
_CACHED = 320_000  # float32 numbers that fit into the second-level cache of one core
_CUDA_TILE = 2**24


def block_maxima(rows: Tensor) -> Tensor:
    """The largest value of each block: [n, vocab] -> [n, blocks]; NaN where the block holds one."""
    return _by_block(rows, torch.amax)


def block_sums(rows: Tensor) -> Tensor:
    """The sum of each block: [n, vocab] -> [n, blocks]."""
    return _by_block(rows, torch.sum)


def total(rows: Tensor) -> Tensor:
    """Sums of rows [n, vocab] -> [n] float64."""
    return block_sums(rows).double().cumsum(dim=-1)[:, -1]


def best_of(rows: Tensor, maxima: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each row, [n], and its index, [n] int64, the lowest of equals.

    rows: [n, vocab]. maxima: their block_maxima().
    """
    values, blocks = maxima.max(dim=-1, keepdim=True)
    inside, ids = block_values(rows, blocks)
    return values.squeeze(1), ids.gather(1, inside.argmax(dim=-1, keepdim=True)).squeeze(1)


def block_values(
    rows: Tensor, blocks: Tensor, fill: float = float("-inf")
) -> tuple[Tensor, Tensor]:
    """The values in some blocks of each row, and their indices in the row: [n, 64 k] each.

    rows: [n, vocab]. blocks: [n, k] int64. fill: the value past the end of the row.
    """
    inside = torch.arange(_BLOCK, device=rows.device)
    ids = (blocks.unsqueeze(-1) * _BLOCK + inside).flatten(1)
    last = rows.shape[1] - 1
    if rows.shape[1] % _BLOCK == 0:
        return rows.gather(1, ids), ids
    is_outside = ids > last
    ids.clamp_(max=last)
    return rows.gather(1, ids).masked_fill_(is_outside, fill), ids


def sum_before(marks: Tensor, indices: Tensor) -> Tensor:
    """Sums [n, 1] of what lies before `indices` [n, 1] in rows [n, vocab] of small integers."""
    blocks = indices // _BLOCK
    inside, ids = block_values(marks, blocks, fill=0.0)
    sums = block_sums(marks).cumsum(dim=-1).gather(1, blocks)
    return sums - (inside * (ids >= indices)).sum(dim=-1, keepdim=True)


def pick(weights: Tensor, points: Tensor) -> Tensor:
    """Inverse transform sampling in the order of the row.

    weights [n, vocab] float32, not negative, one of each row positive; points [n] float64 in
    [0, 1). Returns [n]: where the running sum passes that part of the row's sum. The choice of the
    block and the choice inside it are each scaled by their own sum: rounding can never lead to a
    token without weight.
    """
    sums = block_sums(weights).double().cumsum(dim=-1)
    targets = points.unsqueeze(1) * sums[:, -1:]
    # The clamps only matter to rows with NaN, whose result nobody uses.
    blocks = torch.searchsorted(sums, targets, right=True).clamp_(max=sums.shape[1] - 1)
    before = sums.gather(1, (blocks - 1).clamp_(min=0)).masked_fill_(blocks == 0, 0.0)
    # Below 1: a target is below its block's sum, and rounding keeps that order.
    shares = (targets - before) / (sums.gather(1, blocks) - before)
    values, ids = block_values(weights, blocks, fill=0.0)
    inside = values.double().cumsum(dim=-1)
    index = torch.searchsorted(inside, shares * inside[:, -1:], right=True)
    return ids.gather(1, index.clamp_(max=_BLOCK - 1)).squeeze(1)


class Workspace(Generic[T]):
    """Tiles of rows so small that their float32 logits stay in the cache of the CPU, and the memory
    to work on one tile.

    A whole batch at once takes several times as long: its intermediate tensors are fresh pages.
    """

    def __init__(self, rows: Sequence[T], vocab: int, device: torch.device) -> None:
        is_cpu = device.type == "cpu"
        num_threads = torch.get_num_threads() if is_cpu else 1
        numbers = _CACHED * num_threads if is_cpu else _CUDA_TILE
        self._rows = rows
        self._size = min(len(rows), max(num_threads, numbers // vocab))
        self._spaces = [torch.empty(self._size, vocab, device=device) for _ in range(2)]

    def tiles(self) -> Iterator[tuple[Sequence[T], Tensor, Tensor]]:
        """The rows of each tile, and two tensors [rows, vocab] float32 to be written to. Both are
        used again by the next tile."""
        for start in range(0, len(self._rows), self._size):
            rows = self._rows[start : start + self._size]
            first, second = self._spaces
            yield rows, first[: len(rows)], second[: len(rows)]


def float_rows(logits: Tensor, indices: list[int], space: Tensor) -> Tensor:
    """Some rows of logits [n, vocab] in float32, only to be read.

    They are copied to `space` [len(indices), vocab] where they have to be; elsewhere it is a view.
    """
    first, end = indices[0], indices[0] + len(indices)
    is_range = indices == list(range(first, end))
    if is_range and logits.dtype == torch.float32:
        return logits[first:end]
    if is_range:
        return space.copy_(logits[first:end])
    return space.copy_(logits.index_select(0, upload(torch.tensor(indices), logits.device)))


def _by_block(rows: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """`reduce` of each block: [n, vocab] -> [n, blocks]; the last block may be shorter."""
    whole = rows.shape[1] // _BLOCK * _BLOCK
    parts = []
    if whole:
        parts.append(reduce(rows[:, :whole].view(len(rows), -1, _BLOCK), dim=-1))
    if whole < rows.shape[1]:
        parts.append(reduce(rows[:, whole:], dim=-1, keepdim=True))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
