"""The kernels of paged attention in Triton; `triton_attention` launches them.

Pointers are those of contiguous tensors, but for query and the block tables, whose rows lie
`query_stride` and `table_stride` elements apart. Names in capitals are known when a kernel is
compiled: sizes of the model, and those sizes filled up to powers of two (PAD). OVERLAPS: whether a
kernel is launched before the one before it ends (see `dependent_launch`).

Rules:
1. Keys that a row does not see are not read, so what lies there does not matter.
2. Nothing depends on lengths but the loops inside: a captured call is right for other lengths.
3. Strides are not specialised on: block tables are as wide as the longest sequence of a step, and a
   width of another kind would be another kernel, compiled while everybody waits.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, unused-ignore"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped]
import triton.language as tl  # type: ignore[import-not-found, import-untyped]

from millstream.model.cuda.dependent_launch import wait_for_previous


@triton.jit
def _tanh(x):
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def _pointers(cache, table, index, is_seen, head, dims, PAGE: tl.constexpr, HEADS, DIM):
    """Offsets [n, dims] at which the vectors of tokens `index` of one sequence lie."""
    block = tl.load(table + index // PAGE, mask=is_seen, other=0).to(tl.int64)
    token = block * PAGE + index % PAGE
    return cache + (token[:, None] * HEADS + head) * DIM + dims[None, :]


@triton.jit
def _nothing_seen(ROWS: tl.constexpr, WIDTH_PAD: tl.constexpr):
    """acc, best, total of rows before their first key; see _attend."""
    # Finite, so that a part in which nothing is seen gives no NaN.
    best = tl.full([ROWS], -1.0e30, tl.float32)
    return tl.zeros([ROWS, WIDTH_PAD], tl.float32), best, tl.zeros([ROWS], tl.float32)


@triton.jit
def _add_sink(acc, best, total, sink):
    """acc and total after one more score, which no value belongs to."""
    larger = tl.maximum(best, sink)
    shrink = tl.exp(best - larger)
    return acc * shrink[:, None], total * shrink + tl.exp(sink - larger)


@triton.jit
def _attend(
    query, acc, best, total, keys, values, table, first, last, positions, kv_head, num_heads,
    scale, softcap, WINDOW: tl.constexpr, CHUNK: tl.constexpr, SOFTCAP: tl.constexpr,
    PAGE: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr, WIDTH: tl.constexpr,
    WIDTH_PAD: tl.constexpr, TILE: tl.constexpr,
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
        if CHUNK > 0:
            is_seen = is_seen & (index[None, :] >= positions[:, None] // CHUNK * CHUNK)
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


@triton.jit(do_not_specialize=["query_stride", "table_stride"])
def decode_parts(
    query, keys, values, tables, positions, parts, bests, totals, query_stride, table_stride,
    scale, softcap, WINDOW: tl.constexpr, CHUNK: tl.constexpr, SOFTCAP: tl.constexpr,
    PAGE: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr,
    TILE: tl.constexpr, SPLITS: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One program: the query heads of one key head of one row, over one part of its keys."""
    wait_for_previous(OVERLAPS)
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    length = position + 1
    oldest = 0
    if WINDOW > 0:
        oldest = tl.maximum(length - WINDOW, 0)
    if CHUNK > 0:
        oldest = position // CHUNK * CHUNK
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
    acc, best, total = _nothing_seen(GROUP_PAD, WIDTH_PAD)
    acc, best, total = _attend(
        vectors, acc, best, total, keys, values, tables + row.to(tl.int64) * table_stride, first,
        last, tl.full([GROUP_PAD], 0, tl.int32) + position, kv_head, KV_HEADS, scale, softcap,
        WINDOW, CHUNK, SOFTCAP, PAGE, DIM, DIM_PAD, WIDTH, WIDTH_PAD, TILE,
    )  # fmt: skip
    place = (row.to(tl.int64) * KV_HEADS * GROUP + heads) * SPLITS + split
    tl.store(bests + place, best, mask=is_head)
    tl.store(totals + place, total, mask=is_head)
    is_value = is_head[:, None] & (widths < WIDTH)[None, :]
    tl.store(parts + place[:, None] * WIDTH + widths[None, :], acc, mask=is_value)


@triton.jit
def join_parts(
    parts, bests, totals, sinks, out, HEADS: tl.constexpr, SINKS: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, SPLITS: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One program: the parts of one head of one row as its result."""
    wait_for_previous(OVERLAPS)
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
def _chunk_of(tile, firsts, num_chunks, ROWS: tl.constexpr):
    """The chunk that has this tile, of tiles that are numbered through all chunks.

    Those of chunk i begin at number firsts[i] // ROWS + i. To the next chunk's first one that is at
    least as many as it needs, so no list of tiles is made, and how many there are in all follows
    from the number of rows and chunks alone.
    """
    chunk = -1
    for first in range(0, num_chunks, 128):
        index = first + tl.arange(0, 128)
        is_there = index < num_chunks
        begins = tl.load(firsts + index, mask=is_there, other=0).to(tl.int32) // ROWS + index
        chunk += tl.sum((is_there & (begins <= tile)).to(tl.int32), 0)
    return chunk


@triton.jit(do_not_specialize=["query_stride", "table_stride", "num_chunks"])
def prefill_tile(
    query, keys, values, tables, starts, firsts, sinks, out, query_stride, table_stride,
    num_chunks, scale, softcap, WINDOW: tl.constexpr, CHUNK: tl.constexpr,
    SOFTCAP: tl.constexpr, SINKS: tl.constexpr, PAGE: tl.constexpr, HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr, WIDTH: tl.constexpr,
    WIDTH_PAD: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program: one head of up to ROWS tokens of one chunk. firsts [c + 1]: where chunks begin.

    A chunk whose positions are negative sees no keys; its results are zero.
    """
    # The last rows of a chunk see the most: they start first.
    number, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    chunk = _chunk_of(number, firsts, num_chunks, ROWS)
    begin = tl.load(firsts + chunk).to(tl.int32)
    length = tl.load(firsts + chunk + 1).to(tl.int32) - begin
    tile = number - (begin // ROWS + chunk)
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
        acc, best, total = _nothing_seen(ROWS, WIDTH_PAD)
        oldest = 0
        if WINDOW > 0:
            oldest = tl.maximum(start + tile * ROWS - WINDOW + 1, 0)
        if CHUNK > 0:
            oldest = tl.maximum(start + tile * ROWS, 0) // CHUNK * CHUNK
        last = start + tl.minimum(tile * ROWS + ROWS, length)
        acc, best, total = _attend(
            vectors, acc, best, total, keys, values, tables + chunk.to(tl.int64) * table_stride,
            oldest, last, start + inside, head // (HEADS // KV_HEADS), KV_HEADS, scale, softcap,
            WINDOW, CHUNK, SOFTCAP, PAGE, DIM, DIM_PAD, WIDTH, WIDTH_PAD, TILE,
        )  # fmt: skip
        if SINKS:
            sink = tl.load(sinks + head).to(tl.float32)
            acc, total = _add_sink(acc, best, total, sink)
        # Rows past the end of a chunk, and those for nobody, have seen nothing.
        result = acc / tl.where(total > 0.0, total, 1.0)[:, None]
        where = out + (token[:, None] * HEADS + head) * WIDTH + widths[None, :]
        is_value = is_row[:, None] & (widths < WIDTH)[None, :]
        tl.store(where, result.to(out.dtype.element_ty), mask=is_value)
