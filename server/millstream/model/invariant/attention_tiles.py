"""Attention in tiles of query rows, of sizes that give a row the same bits.

A tile is the least that one call of an attention kernel works on: some query rows over the keys of
one sequence. Its rows are the query heads that share a key head, of one position (small tiles, for
tokens that decode) or of several neighbouring ones (large tiles, for prompts). The bits of a row's
result may depend on how many rows the tile has, where in it the row stands, how many keys
there are, and what other tiles are in the call. The number of keys is made a function of the row's
position alone. The rest is found by trial, once for each shape of attention, before the model
serves.

The trials are made so that the exact results are zero, and what a kernel gives is the rounding of
its sums: see row_tiles.py, which does the same for products by a matrix. There are two kinds,
because attention sums twice. In the first, every query holds numbers and their negatives where the
keys hold numbers twice, so that all scores are zero but for their rounding; a huge scale turns that
rounding into scores of about 1, which show in the result. In the second, keys come in pairs, which
get the same weight, and the values of a pair cancel out.

Rules:
1. A row at position p is attended over exactly `num_keys(p)` keys, those behind p masked.
2. Trials go over all numbers of keys up to `_LARGEST_TRIAL`. Large tiles set the bits; small ones,
   and many in one call, are used where they give the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from millstream.errors import StartupError
from millstream.model.attention import LayerOptions

# 64, 96, 128, 192 and so on: at most half as many again as needed, and few different ones.
_NUM_KEYS = np.array([count << shift for shift in range(24) for count in (64, 96)], dtype=np.int64)
_LARGEST_TRIAL = 2048  # torch's kernel takes keys in blocks of 512; beyond, blocks only repeat
_TILE_ROWS = 32
_SMALL_ROWS = (4, 8, 16, 32)
_NUM_VECTORS = 3
_TRIAL_SCALE = 2.0**22  # makes the rounding of a product of queries and keys a score of about 1


def num_keys(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many keys rows at `positions` [n] are attended over, their own included: [n] int64."""
    return _NUM_KEYS[np.searchsorted(_NUM_KEYS, positions + 1)]


@dataclass(frozen=True, slots=True)
class Tiles:
    """The sizes of tiles that give a row the same bits.

    rows: of a small tile, which has one position. large_rows: of a large tile. positions: how many
    a large tile has. is_batched: whether many tiles may go in one call.
    """

    rows: int
    positions: int
    large_rows: int
    is_batched: bool


def needs_scores(keys: Tensor, values: Tensor, options: LayerOptions) -> bool:
    """Whether torch's own kernel cannot compute this attention: it knows neither a softcap, nor
    sinks, nor values [..., dv] of another size than keys [..., d]."""
    is_plain = options.softcap is None and options.sinks is None
    return not is_plain or keys.shape[-1] != values.shape[-1]


def attend_tiles(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, options: LayerOptions, tiles: Tiles
) -> Tensor:
    """Attends n tiles: query [n, kv_heads, rows, d] -> [n, kv_heads, rows, dv], all of one dtype.

    keys: [n or 1, kv_heads, m, d]. values: [n or 1, kv_heads, m, dv]. mask: [n, 1, rows or 1, m],
    added to the scores.
    """
    num_tiles, query = len(query), query.contiguous()
    keys, values = keys.expand(num_tiles, -1, -1, -1), values.expand(num_tiles, -1, -1, -1)
    if needs_scores(keys, values, options):
        each = [
            _attend_scores(query[i], keys[i], values[i], mask[i], options) for i in range(num_tiles)
        ]
        return torch.stack(each)
    if tiles.is_batched:
        return F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=options.scale
        )
    single = [
        F.scaled_dot_product_attention(
            query[i : i + 1],
            keys[i : i + 1],
            values[i : i + 1],
            attn_mask=mask[i : i + 1],
            scale=options.scale,
        )
        for i in range(num_tiles)
    ]
    return torch.cat(single)


def _attend_scores(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, options: LayerOptions
) -> Tensor:
    """Attends one tile, with what torch's kernel does not know: query [kv_heads, rows, d] ->
    [kv_heads, rows, dv].

    Intentional: `torch.ops.aten.bmm`, which InvariantOperators leaves alone; a tile is one already.
    """
    scores = torch.ops.aten.bmm(query, keys.transpose(1, 2)).float() * options.scale
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    scores = scores + mask.float()
    if options.sinks is None:
        weights = scores.softmax(dim=-1)
    else:
        sinks = options.sinks.float().view(len(keys), -1)
        # Rows are positions times the heads that share a key head, and a rest that is not used.
        repeats = -(-scores.shape[1] // sinks.shape[1])
        sinks = sinks.repeat(1, repeats)[:, : scores.shape[1], None]
        weights = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1].contiguous()
    out: Tensor = torch.ops.aten.bmm(weights.to(values.dtype), values)
    return out


@dataclass(frozen=True, slots=True)
class TileTrial:
    """Queries whose exact attention over these keys and values is zero.

    queries: [v, 1, kv_heads, 1, d]. keys: [1, kv_heads, m, d]. values: [1, kv_heads, m, dv].
    mask: [1, 1, 1, m].
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor
    options: LayerOptions

    def results(self, tiles: Tiles, rows: int) -> Tensor | None:
        """Each query in a tile full of it, [v, 1, kv_heads, 1, dv]; None where its rows differ."""
        results = [
            attend_tiles(
                query.expand(-1, -1, rows, -1),
                self.keys,
                self.values,
                self.mask,
                self.options,
                tiles,
            )
            for query in self.queries
        ]
        out = torch.stack(results)
        first = out[..., :1, :]
        return first if torch.equal(out, first.expand_as(out)) else None

    def equals(self, expected: Tensor, tiles: Tiles, rows: int) -> bool:
        """Whether tiles of `rows` rows give what was expected, [v, 1, kv_heads, 1, dv]."""
        actual = self.results(tiles, rows)
        return actual is not None and torch.equal(actual, expected)

    def is_same_beside_others(self, expected: Tensor, tiles: Tiles, rows: int) -> bool:
        """Whether many tiles in one call give what each gives alone, [v, 1, kv_heads, 1, dv]."""
        queries = self.queries.expand(-1, -1, -1, rows, -1).flatten(0, 1)
        actual = attend_tiles(
            queries,
            self.keys,
            self.values,
            self.mask.expand(len(queries), -1, -1, -1),
            self.options,
            replace(tiles, is_batched=True),
        )
        return torch.equal(actual, expected.flatten(0, 1).expand_as(actual))


def find_tiles(shared: int, keys: Tensor, values: Tensor, options: LayerOptions) -> Tiles:
    """The tiles for attention of the shape and options given, by trial.

    shared: query heads to a key head. keys, values: any of the model's, as in `attend_tiles()`.
    Raises StartupError if it changes a row's bits where in a tile the row stands.
    """
    large = max(_TILE_ROWS, -(-shared // 4) * 4)
    tiles = Tiles(rows=large, positions=large // shared, large_rows=large, is_batched=False)
    trials = list(_trials(keys, values, options))
    expected = []
    for trial in trials:
        result = trial.results(tiles, large)
        if result is None:
            raise StartupError(
                "--batch-invariant: on this processor the attention of this model depends on "
                "where in a batch a row stands; serve it without the flag"
            )
        expected.append(result)
    pairs = list(zip(trials, expected, strict=True))
    for rows in _SMALL_ROWS:
        if shared <= rows < large and all(t.equals(e, tiles, rows) for t, e in pairs):
            tiles = replace(tiles, rows=rows)
            break
    if not needs_scores(keys, values, options) and all(
        trial.is_same_beside_others(result, tiles, rows)
        for trial, result in pairs
        for rows in (tiles.rows, tiles.large_rows)
    ):
        tiles = replace(tiles, is_batched=True)
    return tiles


def _trials(keys: Tensor, values: Tensor, options: LayerOptions) -> Iterator[TileTrial]:
    """For every number of keys, a trial of scores and a trial of sums of values."""
    generator = torch.Generator().manual_seed(0)
    heads, width, dtype = keys.shape[1], keys.shape[3], keys.dtype
    if options.sinks is not None:
        # Rows of a tile belong to several heads; here they must not differ.
        options = replace(options, sinks=torch.zeros_like(options.sinks))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def stored(tensor: Tensor) -> Tensor:
        """A tensor [1, kv_heads, m, d] in the cache's layout: the heads of a token together."""
        return tensor.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)

    for count in _NUM_KEYS[_NUM_KEYS <= _LARGEST_TRIAL].tolist():
        mask = torch.zeros(1, 1, 1, count, dtype=dtype)
        half = normal(_NUM_VECTORS, 1, heads, 1, width // 2)
        order = torch.randperm(width // 2 * 2, generator=generator)
        queries = torch.cat([half, -half], dim=-1)[..., order]
        half = normal(1, heads, count, width // 2)
        same = torch.cat([half, half], dim=-1)[..., order]
        if width % 2:
            queries, same = F.pad(queries, (0, 1)), F.pad(same, (0, 1))
        other = normal(1, heads, count, values.shape[3])
        scaled = replace(options, scale=_TRIAL_SCALE)
        yield TileTrial(queries.to(dtype), stored(same), stored(other), mask, scaled)
        order = torch.randperm(count, generator=generator)
        half = normal(1, heads, count // 2, width)
        same = torch.cat([half, half], dim=2)[:, :, order]
        half = normal(1, heads, count // 2, values.shape[3])
        other = torch.cat([half, -half], dim=2)[:, :, order]
        queries = normal(_NUM_VECTORS, 1, heads, 1, width)
        scaled = replace(options, scale=width**-0.5)
        yield TileTrial(queries.to(dtype), stored(same), stored(other), mask, scaled)
