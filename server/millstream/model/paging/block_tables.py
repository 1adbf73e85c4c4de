"""The block tables of the running sequences as rows of one array, kept from step to step.

Rules:
1. A row is written once and then extended by what is new, so a decode step costs the same however
   long the sequences are. It holds good only while its request has the same list object: the
   scheduler extends a list in place and makes a new one when blocks change.
2. Behind the end of a table stands the padding block, in every row and always.
3. A request that is not in a step loses its row, so nothing of finished ones is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.plan import Chunk


@dataclass(slots=True)
class _Row:
    """Row `index` of the array; it has the first `length` blocks of the list `source`."""

    index: int
    source: list[int]
    length: int


class BlockTables:
    """Block tables by request, each a row of one array. Mutated by the packer only."""

    def __init__(self, padding_block: int) -> None:
        self._padding_block = padding_block
        self._array = np.full((8, 32), padding_block, dtype=np.int32)
        self._rows: dict[int, _Row] = {}
        self._free = list(range(len(self._array)))

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, chunks: Sequence[Chunk]) -> NDArray[np.int64]:
        """The number of each chunk's row [len(chunks)] int64, good until the next call.

        Brings the rows up to date with the chunks' block tables.
        """
        indices = []
        for chunk in chunks:
            table = chunk.block_table
            row = self._rows.get(chunk.request_id)
            if row is None or row.source is not table or row.length != len(table):
                row = self._update(chunk.request_id, row, table)
            indices.append(row.index)
        if len(self._rows) > len(used := set(indices)):
            self._drop_all_but(used)
        return np.array(indices, dtype=np.int64)

    def blocks(self, rows: NDArray[np.int64], count: int) -> NDArray[np.int32]:
        """A copy of the first `count` entries of the tables in `rows`, [len(rows), count]."""
        self._reserve(len(self._array), count)
        return self._array[rows, :count]

    def blocks_at(self, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entry indices[i] of the table in rows[i], [len(rows)]; the arguments broadcast."""
        return self._array[rows, indices].astype(np.int64)

    def _update(self, request_id: int, row: _Row | None, table: list[int]) -> _Row:
        if row is not None and row.source is table and row.length < len(table):
            length = row.length
        else:
            row = self._blank(row, table)
            length = 0
        self._reserve(len(self._array), len(table))
        self._array[row.index, length : len(table)] = table[length:]
        row.length = len(table)
        self._rows[request_id] = row
        return row

    def _blank(self, row: _Row | None, table: list[int]) -> _Row:
        """A row for `table` with nothing but padding: the request's own one, or a free one."""
        if row is None and not self._free:
            height = len(self._array)
            self._reserve(2 * height, 0)
            self._free = list(range(height, 2 * height))
        index = self._free.pop() if row is None else row.index
        self._array[index] = self._padding_block
        return _Row(index, table, 0)

    def _reserve(self, height: int, width: int) -> None:
        """Makes the array at least that large; at least doubles what grows."""
        old_height, old_width = self._array.shape
        if height <= old_height and width <= old_width:
            return
        new_width = max(width, 2 * old_width) if width > old_width else old_width
        size = (max(height, old_height), new_width)
        array = np.full(size, self._padding_block, dtype=np.int32)
        array[:old_height, :old_width] = self._array
        self._array = array

    def _drop_all_but(self, used: set[int]) -> None:
        for request_id, row in list(self._rows.items()):
            if row.index not in used:
                del self._rows[request_id]
                self._free.append(row.index)
