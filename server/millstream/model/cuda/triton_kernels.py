"""Paged attention in Triton: one token per sequence, and prompt chunks.

Rules:
1. What they compute is written in `native/reference.py`: same meaning, any device Triton knows.
2. Keys that a row does not see are not read, so what lies there does not matter.
3. Nothing depends on lengths but the loops inside: a captured call is right for other lengths.
4. Decode splits the keys of a row among programs, so that few long sequences keep the device busy
   (https://pytorch.org/blog/flash-decoding/); a second kernel joins the parts.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, unused-ignore"

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped]
import triton.language as tl  # type: ignore[import-not-found, import-untyped]
from torch import Tensor

from millstream.model.attention import LayerOptions

_ROWS = 64  # query rows of a program, for prompts
_SMALLEST_DOT = 16
_TILE_BYTES = 32 * 1024  # keys of one step of a loop
_PROGRAMS = 512  # enough for every multiprocessor of a large device, a few times over
_LARGEST_SPLIT = 64


@triton.jit
def _tanh(x):
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def _pointers(cache, table, index, is_seen, head, dims, PAGE: tl.constexpr, HEADS, DIM):
    """Where the vectors of tokens `index` of one sequence lie, [n, dims]."""
    block = tl.load(table + index // PAGE, mask=is_seen, other=0).to(tl.int64)
    token = block * PAGE + index % PAGE
    return cache + (token[:, None] * HEADS + head) * DIM + dims[None, :]


@triton.jit
def _attend(
    query, acc, best, total, keys, values, table, first, last, positions, kv_head, num_heads,
    scale, softcap, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PAGE: tl.constexpr,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Adds keys first .. last - 1 to a running softmax; query [rows, DIM_PAD], positions [rows].

    best, total [rows]: largest score so far, sum of weights relative to it; acc [rows, WIDTH_PAD].
    """
    dims, widths = tl.arange(0, DIM_PAD), tl.arange(0, WIDTH_PAD)
    for start in range(first, last, TILE):
        index = start + tl.arange(0, TILE)
        is_there = index < last
        where = _pointers(keys, table, index, is_there, kv_head, dims, PAGE, num_heads, DIM)
        key = tl.load(where, mask=is_there[:, None] & (dims < DIM)[None, :], other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        if SOFTCAP:
            scores = softcap * _tanh(scores / softcap)
        is_seen = is_there[None, :] & (index[None, :] <= positions[:, None])
        if WINDOW > 0:
            is_seen = is_seen & (index[None, :] > positions[:, None] - WINDOW)
        scores = tl.where(is_seen, scores, float("-inf"))
        larger = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        shrink = tl.exp(best - larger)
        total = total * shrink + tl.sum(weights, 1)
        where = _pointers(values, table, index, is_there, kv_head, widths, PAGE, num_heads, WIDTH)
        value = tl.load(where, mask=is_there[:, None] & (widths < WIDTH)[None, :], other=0.0)
        acc = acc * shrink[:, None]
        acc += tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        best = larger
    return acc, best, total


@triton.jit
def _decode(
    query, keys, values, tables, positions, parts, bests, totals, query_stride, table_stride,
    scale, softcap, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PAGE: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, DIM: tl.constexpr,
    DIM_PAD: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, TILE: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """One program: the query heads of one key head of one row, over one part of its keys."""
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    length = position + 1
    oldest = 0
    if WINDOW > 0:
        oldest = tl.maximum(length - WINDOW, 0)
    share = tl.cdiv(tl.cdiv(length - oldest, SPLITS), TILE) * TILE
    first = oldest + split * share
    last = tl.minimum(first + share, length)
    members, dims = tl.arange(0, GROUP_PAD), tl.arange(0, DIM_PAD)
    widths = tl.arange(0, WIDTH_PAD)
    heads = kv_head * GROUP + members
    is_head = members < GROUP
    vectors = tl.load(
        query + row.to(tl.int64) * query_stride + heads[:, None] * DIM + dims[None, :],
        mask=is_head[:, None] & (dims < DIM)[None, :],
        other=0.0,
    )
    # Finite, so that a part in which nothing is seen gives no NaN.
    best = tl.full([GROUP_PAD], -1.0e30, tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    acc = tl.zeros([GROUP_PAD, WIDTH_PAD], tl.float32)
    acc, best, total = _attend(
        vectors, acc, best, total, keys, values, tables + row.to(tl.int64) * table_stride, first,
        last, tl.full([GROUP_PAD], 0, tl.int32) + position, kv_head, KV_HEADS, scale, softcap,
        WINDOW, SOFTCAP, PAGE, DIM, DIM_PAD, WIDTH, WIDTH_PAD, TILE,
    )  # fmt: skip
    place = (row.to(tl.int64) * KV_HEADS * GROUP + heads) * SPLITS + split
    tl.store(bests + place, best, mask=is_head)
    tl.store(totals + place, total, mask=is_head)
    is_value = is_head[:, None] & (widths < WIDTH)[None, :]
    tl.store(parts + place[:, None] * WIDTH + widths[None, :], acc, mask=is_value)


@triton.jit
def _join(
    parts, bests, totals, sinks, out, HEADS: tl.constexpr, SINKS: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """One program: the parts of one head of one row as its result."""
    row, head = tl.program_id(0), tl.program_id(1)
    splits, widths = tl.arange(0, SPLITS), tl.arange(0, WIDTH_PAD)
    place = (row.to(tl.int64) * HEADS + head) * SPLITS + splits
    best = tl.load(bests + place)
    top = tl.max(best, 0)
    if SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        top = tl.maximum(top, sink)
    weight = tl.exp(best - top)
    total = tl.sum(weight * tl.load(totals + place), 0)
    if SINKS:
        total += tl.exp(sink - top)
    part = tl.load(
        parts + place[:, None] * WIDTH + widths[None, :], mask=(widths < WIDTH)[None, :], other=0.0
    )
    result = tl.sum(part * weight[:, None], 0) / total
    where = out + (row.to(tl.int64) * HEADS + head) * WIDTH + widths
    tl.store(where, result.to(out.dtype.element_ty), mask=widths < WIDTH)


@triton.jit
def _prefill(
    query, keys, values, tables, starts, firsts, sinks, out, query_stride, table_stride, scale,
    softcap, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr, PAGE: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program: one head of ROWS tokens of one chunk. firsts [c + 1]: where chunks begin."""
    chunk, head = tl.program_id(1), tl.program_id(2)
    # The last rows of a chunk see the most: they start first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    begin = tl.load(firsts + chunk).to(tl.int32)
    length = tl.load(firsts + chunk + 1).to(tl.int32) - begin
    if tile * ROWS < length:
        start = tl.load(starts + chunk).to(tl.int32)
        inside = tile * ROWS + tl.arange(0, ROWS)
        dims, widths = tl.arange(0, DIM_PAD), tl.arange(0, WIDTH_PAD)
        is_row, token = inside < length, (begin + inside).to(tl.int64)
        vectors = tl.load(
            query + token[:, None] * query_stride + head * DIM + dims[None, :],
            mask=is_row[:, None] & (dims < DIM)[None, :],
            other=0.0,
        )
        best = tl.full([ROWS], -1.0e30, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, WIDTH_PAD], tl.float32)
        oldest = 0
        if WINDOW > 0:
            oldest = tl.maximum(start + tile * ROWS - WINDOW + 1, 0)
        last = start + tl.minimum(tile * ROWS + ROWS, length)
        acc, best, total = _attend(
            vectors, acc, best, total, keys, values, tables + chunk.to(tl.int64) * table_stride,
            oldest, last, start + inside, head // (HEADS // KV_HEADS), KV_HEADS, scale, softcap,
            WINDOW, SOFTCAP, PAGE, DIM, DIM_PAD, WIDTH, WIDTH_PAD, TILE,
        )  # fmt: skip
        if SINKS:
            sink = tl.load(sinks + head).to(tl.float32)
            larger = tl.maximum(best, sink)
            acc = acc * tl.exp(best - larger)[:, None]
            total = total * tl.exp(best - larger) + tl.exp(sink - larger)
        # Rows past the end of a chunk may have seen nothing.
        result = acc / tl.where(total > 0.0, total, 1.0)[:, None]
        where = out + (token[:, None] * HEADS + head) * WIDTH + widths[None, :]
        is_value = is_row[:, None] & (widths < WIDTH)[None, :]
        tl.store(where, result.to(out.dtype.element_ty), mask=is_value)


def decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    positions: Tensor,
    options: LayerOptions,
) -> Tensor:
    """`reference.paged_attention_decode()`; tables int32 or int64, last dimensions contiguous."""
    rows, heads, dim = query.shape
    _, page, kv_heads, width = value_cache.shape
    query = _packed_heads(query)
    splits = num_splits(rows * kv_heads)
    parts = query.new_empty((rows, heads, splits, width), dtype=torch.float32)
    bests, totals = query.new_empty((2, rows, heads, splits), dtype=torch.float32)
    out = query.new_empty(rows, heads, width)
    sizes = {**_sizes(dim, width, query.dtype), "SPLITS": splits}
    group = heads // kv_heads
    _decode[(rows, kv_heads, splits)](
        query, key_cache, value_cache, tables, positions, parts, bests, totals,
        query.stride(0), tables.stride(0), options.scale, options.softcap or 1.0,
        WINDOW=options.window or 0, SOFTCAP=options.softcap is not None, PAGE=page,
        KV_HEADS=kv_heads, GROUP=group, GROUP_PAD=_padded(group), **sizes,
    )  # fmt: skip
    sinks = options.sinks
    _join[(rows, heads)](
        parts, bests, totals, out if sinks is None else sinks, out, HEADS=heads,
        SINKS=sinks is not None, WIDTH=width, WIDTH_PAD=sizes["WIDTH_PAD"], SPLITS=splits,
    )  # fmt: skip
    return out


def prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    starts: Tensor,
    firsts: Tensor,
    options: LayerOptions,
    longest: int,
) -> Tensor:
    """`reference.paged_attention_prefill()`. firsts [c + 1]: row of each chunk's first token, and
    the end; longest: tokens of the longest chunk."""
    tokens, heads, dim = query.shape
    _, page, kv_heads, width = value_cache.shape
    query = _packed_heads(query)
    out = query.new_empty(tokens, heads, width)
    sinks = options.sinks
    _prefill[(triton.cdiv(longest, _ROWS), len(starts), heads)](
        query, key_cache, value_cache, tables, starts, firsts, out if sinks is None else sinks,
        out, query.stride(0), tables.stride(0), options.scale, options.softcap or 1.0,
        WINDOW=options.window or 0, SOFTCAP=options.softcap is not None, SINKS=sinks is not None,
        PAGE=page, HEADS=heads, KV_HEADS=kv_heads, ROWS=_ROWS, **_sizes(dim, width, query.dtype),
    )  # fmt: skip
    return out


def num_splits(programs: int) -> int:
    """Parts of each row's keys where `programs` would run without: a power of two."""
    wanted = triton.next_power_of_2(max(1, _PROGRAMS // programs))
    return int(min(wanted, _LARGEST_SPLIT))


def _sizes(dim: int, width: int, dtype: torch.dtype) -> dict[str, int]:
    dim_pad, width_pad = _padded(dim), _padded(width)
    tile = _TILE_BYTES // (dtype.itemsize * max(dim_pad, width_pad))
    return {
        "DIM": dim,
        "DIM_PAD": dim_pad,
        "WIDTH": width,
        "WIDTH_PAD": width_pad,
        "TILE": min(128, max(_SMALLEST_DOT, tile)),
        "num_stages": 2,  # more of wide float32 heads than that do not fit into shared memory
    }


def _padded(number: int) -> int:
    return int(max(_SMALLEST_DOT, triton.next_power_of_2(number)))


def _packed_heads(query: Tensor) -> Tensor:
    """The heads of a token side by side; tokens may lie apart."""
    is_packed = query.stride(-1) == 1 and query.stride(1) == query.shape[2]
    return query if is_packed else query.contiguous()
