"""Attention whose result for a row depends on its position and its keys only, to the bit.

Rules:
1. A row at position p is attended over exactly `num_keys(p)` keys, those behind p masked,
   whether it is decoded, computed in a chunk or computed again after a preemption.
2. Query rows go in tiles: one position, or a few that follow each other, times the query heads of
   a key head. Both sizes, and many tiles in one call, are used only where trials over all key
   counts gave the same bits as single large tiles.
3. Keys are always read from the cache, so that what is read does not depend on the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from millstream.model.attention import LayerOptions, Reach
from millstream.model.invariant.attention_tiles import (
    Tiles,
    attend_tiles,
    find_tiles,
    needs_scores,
    num_keys,
)
from millstream.model.paging.gathered import decode_groups
from millstream.model.paging.kv_cache import read_blocks
from millstream.model.paging.step import Span


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a span that are attended over equally many keys.

    rows: their numbers in the span, [b] or a slice; positions [b]: theirs. Keeps a mask per reach
    and kind of tile.
    """

    rows: Tensor | slice
    positions: Tensor
    num_keys: int
    masks: dict[tuple[Reach, Tiles], Tensor] = field(default_factory=dict, compare=False)


class TiledBackend:
    """An AttentionBackend for the CPU and all options. Remembers which tiles the trials allowed."""

    name = "tiled-paged"
    is_capturable = False

    def __init__(self, padding_block: int) -> None:
        """padding_block: the cache's, which is always finite."""
        self._padding_block = padding_block
        self._tiles: dict[object, Tiles] = {}

    def handles(self, options: LayerOptions) -> bool:
        """Always True."""
        return True

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """One token of each of n sequences attends: query [n, heads, d] -> [n, heads, dv]."""
        groups = span.once("equal counts", partial(self._decode_groups, span, keys.shape[1]))
        out = query.new_empty(*query.shape[:2], values.shape[3])
        for tables, rows in groups:
            gathered = read_blocks(keys, tables), read_blocks(values, tables)
            out[rows.rows] = self._decode_rows(query[rows.rows], *gathered, rows, options)
        return out

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The T tokens of prompt chunks attend: query [T, heads, d] -> [T, heads, dv]."""
        chunks = span.once("equal counts", partial(self._chunks, span, keys.shape[1]))
        out = query.new_empty(*query.shape[:2], values.shape[3])
        for tables, pieces in chunks:
            gathered = read_blocks(keys, tables), read_blocks(values, tables)
            for piece in pieces:
                out[piece.rows] = self._prefill_rows(query[piece.rows], *gathered, piece, options)
        return out

    def _decode_rows(
        self, query: Tensor, keys: Tensor, values: Tensor, rows: _Rows, options: LayerOptions
    ) -> Tensor:
        """query [b, heads, d], keys [b, kv_heads, m, d], values [b, kv_heads, m, dv] ->
        [b, heads, dv]; the first num_keys of the m keys are used."""
        count, heads, dim = query.shape
        kv_heads, shared = keys.shape[1], heads // keys.shape[1]
        tiles = self._tiles_of(query, keys, values, options)
        key = (options.reach, tiles)
        if key not in rows.masks:
            positions = rows.positions[:, None]
            rows.masks[key] = _mask(positions, rows.num_keys, options.reach, query.dtype)
        tiled = query.reshape(count, kv_heads, shared, dim)
        tiled = F.pad(tiled, (0, 0, 0, tiles.rows - shared))
        keys, values = keys[:, :, : rows.num_keys], values[:, :, : rows.num_keys]
        out = attend_tiles(tiled, keys, values, rows.masks[key], options, tiles)
        return out[:, :, :shared].reshape(count, heads, -1)

    def _prefill_rows(
        self, query: Tensor, keys: Tensor, values: Tensor, rows: _Rows, options: LayerOptions
    ) -> Tensor:
        """query [n, heads, d]: rows of one chunk, keys [1, kv_heads, m, d], values
        [1, kv_heads, m, dv] -> [n, heads, dv]; the first num_keys of the m keys are used."""
        kv_heads, shared = keys.shape[1], query.shape[1] // keys.shape[1]
        tiles = self._tiles_of(query, keys, values, options)
        key = (options.reach, tiles)
        if key not in rows.masks:
            positions = _in_tiles(rows.positions, shared, tiles)
            rows.masks[key] = _mask(positions, rows.num_keys, options.reach, query.dtype)
        tiled = _to_tiles(query, kv_heads, tiles)
        keys, values = keys[:, :, : rows.num_keys], values[:, :, : rows.num_keys]
        out = attend_tiles(tiled, keys, values, rows.masks[key], options, tiles)
        return _from_tiles(out, shared, tiles)[: len(query)]

    def _decode_groups(self, span: Span, block_size: int) -> list[tuple[Tensor, _Rows]]:
        """The decode rows with each number of keys, and their block tables [b, blocks]."""
        groups = []
        for group in decode_groups(span, num_keys(span.on_host.starts), block_size):
            count = int(num_keys(group.positions[:1].numpy())[0])
            tables = self._reaching(group.tables, count, block_size)
            groups.append((tables, _Rows(group.rows, group.positions, count)))
        return groups

    def _chunks(self, span: Span, block_size: int) -> list[tuple[Tensor, list[_Rows]]]:
        """The block table [1, blocks] of each chunk, and its rows, cut where the number of keys
        changes."""
        host, chunks, first = span.on_host, [], 0
        bounds = zip(host.starts.tolist(), host.lengths.tolist(), strict=True)
        for number, (start, length) in enumerate(bounds):
            positions = np.arange(start, start + length)
            counts = num_keys(positions)
            cuts = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), length]
            pieces = [
                _Rows(
                    slice(first + begin, first + end),
                    torch.from_numpy(positions[begin:end]),
                    int(counts[begin]),
                )
                for begin, end in pairwise(cuts)
            ]
            table = span.tables[number : number + 1]
            chunks.append((self._reaching(table, pieces[-1].num_keys, block_size), pieces))
            first += length
        return chunks

    def _reaching(self, tables: Tensor, count: int, block_size: int) -> Tensor:
        """Block tables [b, n], cut or filled up so that they reach over `count` keys."""
        width = -(-count // block_size)
        return F.pad(tables, (0, width - tables.shape[1]), value=self._padding_block)

    def _tiles_of(
        self, query: Tensor, keys: Tensor, values: Tensor, options: LayerOptions
    ) -> Tiles:
        """The tiles for a layer; found by trial for the first layer of each kind."""
        kv_heads = keys.shape[1]
        shared = query.shape[1] // kv_heads
        is_dense = needs_scores(keys, values, options)
        key = (shared, kv_heads, keys.shape[3], values.shape[3], query.dtype, is_dense)
        if key not in self._tiles:
            self._tiles[key] = find_tiles(shared, keys, values, options)
        return self._tiles[key]


def _in_tiles(positions: Tensor, shared: int, tiles: Tiles) -> Tensor:
    """Positions [n] that follow each other, for the rows of large tiles: [tiles, large_rows]."""
    start, num_tiles = int(positions[0]), -(-len(positions) // tiles.positions)
    whole = torch.arange(start, start + num_tiles * tiles.positions)
    rows = whole.view(num_tiles, -1).repeat_interleave(shared, dim=1)
    filler = rows[:, -1:].expand(-1, tiles.large_rows - rows.shape[1])
    return torch.cat([rows, filler], dim=1)


def _to_tiles(query: Tensor, kv_heads: int, tiles: Tiles) -> Tensor:
    """[n, heads, d] -> [tiles, kv_heads, large_rows, d]: positions times heads of a key head."""
    count, heads, dim = query.shape
    shared = heads // kv_heads
    query = F.pad(query, (0, 0, 0, 0, 0, -count % tiles.positions))
    query = query.reshape(-1, tiles.positions, kv_heads, shared, dim).transpose(1, 2)
    rows = query.reshape(-1, kv_heads, tiles.positions * shared, dim)
    return F.pad(rows, (0, 0, 0, tiles.large_rows - rows.shape[2]))


def _from_tiles(out: Tensor, shared: int, tiles: Tiles) -> Tensor:
    """[tiles, kv_heads, large_rows, dv] -> [tiles * positions, heads, dv]."""
    num_tiles, kv_heads, _, dim = out.shape
    rows = out[:, :, : tiles.positions * shared]
    rows = rows.view(num_tiles, kv_heads, tiles.positions, shared, dim).transpose(1, 2)
    return rows.reshape(-1, kv_heads * shared, dim)


def _mask(rows: Tensor, count: int, reach: Reach, dtype: torch.dtype) -> Tensor:
    """What is added to scores, [n, 1, r, count]: 0 where a row sees the key, -inf elsewhere.

    rows [n, r]: their positions.
    """
    keys = torch.arange(count)
    rows = rows[:, None, :, None]
    seen = keys <= rows
    if (first := reach.first(rows)) is not None:
        seen = seen & (keys >= first)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
