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

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.invariant.attention_tiles import (
    Tiles,
    attend_tiles,
    find_tiles,
    needs_scores,
    num_keys,
)
from millstream.model.paging.batch import DecodeGroup, Packer, PagedBatch, PromptPart
from millstream.model.paging.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows first .. first + length of the batch, at positions from `start`, with as many keys."""

    first: int
    length: int
    start: int
    num_keys: int


class InvariantPacker(Packer):
    """Packs for InvariantBatch; remembers which tiles the trials allowed."""

    def __init__(self, cache: KVCache, device: torch.device) -> None:
        super().__init__(cache, device)
        self._tiles: dict[object, Tiles] = {}

    def _batch(
        self, slots: Tensor, decodes: list[DecodeGroup], prompts: list[PromptPart]
    ) -> PagedBatch:
        return InvariantBatch(self._cache, slots, decodes, prompts, self._tiles)

    def _group_of(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return num_keys(starts)

    def _num_blocks(self, start: int) -> int:
        return -(-int(num_keys(np.array(start))) // self._cache.block_size)


class InvariantBatch(PagedBatch):
    """One step, attended in tiles."""

    def __init__(
        self,
        cache: KVCache,
        slots: Tensor,
        decodes: list[DecodeGroup],
        prompts: list[PromptPart],
        tiles: dict[object, Tiles],
    ) -> None:
        super().__init__(cache, slots, decodes, prompts)
        self._tiles = tiles
        self._masks: dict[tuple[_Piece | int, int | None, Tiles], Tensor] = {}

    def _attend_decode(
        self, layer: int, query: Tensor, group: DecodeGroup, options: LayerOptions
    ) -> Tensor:
        keys, values = self._cache.read(layer, group.blocks)
        rows, heads, dim = query.shape
        kv_heads = keys.shape[1]
        shared = heads // kv_heads
        count = int(num_keys(group.positions[:1].numpy())[0])
        tiles = self._tiles_of(query, keys, values, options)
        key = (id(group), options.window, tiles)
        if key not in self._masks:
            self._masks[key] = _mask(group.positions[:, None], count, options.window, query.dtype)
        tiled = query.reshape(rows, kv_heads, shared, dim)
        tiled = F.pad(tiled, (0, 0, 0, tiles.rows - shared))
        keys, values = keys[:, :, :count], values[:, :, :count]
        out = attend_tiles(tiled, keys, values, self._masks[key], options, tiles)
        return out[:, :, :shared].reshape(rows, heads, -1)

    def _attend_prompt(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        part: PromptPart,
        options: LayerOptions,
    ) -> Tensor:
        keys, values = self._cache.read(layer, part.blocks)
        tiles = self._tiles_of(query, keys, values, options)
        out = query.new_empty(*query.shape[:2], values.shape[-1])
        for piece in _pieces(part):
            rows = slice(piece.first - part.first, piece.first - part.first + piece.length)
            mask = self._piece_mask(piece, query, keys.shape[1], options.window, tiles)
            tiled = _to_tiles(query[rows], keys.shape[1], tiles)
            seen = keys[:, :, : piece.num_keys], values[:, :, : piece.num_keys]
            found = attend_tiles(tiled, *seen, mask, options, tiles)
            shared = query.shape[1] // keys.shape[1]
            out[rows] = _from_tiles(found, shared, tiles)[: piece.length]
        return out

    def _piece_mask(
        self, piece: _Piece, query: Tensor, kv_heads: int, window: int | None, tiles: Tiles
    ) -> Tensor:
        key = (piece, window, tiles)
        if key not in self._masks:
            shared = query.shape[1] // kv_heads
            num_tiles = -(-piece.length // tiles.positions)
            positions = torch.arange(piece.start, piece.start + num_tiles * tiles.positions)
            rows = positions.view(num_tiles, -1).repeat_interleave(shared, dim=1)
            filler = rows[:, -1:].expand(-1, tiles.large_rows - rows.shape[1])
            rows = torch.cat([rows, filler], dim=1)
            self._masks[key] = _mask(rows, piece.num_keys, window, query.dtype)
        return self._masks[key]

    def _tiles_of(
        self, query: Tensor, keys: Tensor, values: Tensor, options: LayerOptions
    ) -> Tiles:
        shared = query.shape[1] // keys.shape[1]
        is_dense = needs_scores(keys, values, options)
        key = (shared, keys.shape[1], keys.shape[3], values.shape[3], query.dtype, is_dense)
        if key not in self._tiles:
            self._tiles[key] = find_tiles(shared, keys, values, options)
        return self._tiles[key]


def _pieces(part: PromptPart) -> list[_Piece]:
    """A chunk, cut where the number of keys changes."""
    counts = num_keys(np.arange(part.start, part.start + part.length))
    cuts = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), part.length]
    return [
        _Piece(part.first + begin, end - begin, part.start + begin, int(counts[begin]))
        for begin, end in pairwise(cuts)
    ]


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


def _mask(rows: Tensor, count: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where rows at positions [n, r] see the key; [n, 1, r, count]."""
    keys = torch.arange(count)
    rows = rows[:, None, :, None]
    seen = keys <= rows
    if window is not None:
        seen = seen & (keys > rows - window)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
