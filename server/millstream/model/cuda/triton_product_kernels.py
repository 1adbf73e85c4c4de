"""Products of a weight with few rows, in Triton; `triton_products` launches them.

A weight is read once, whatever is multiplied by it, so such a product takes as long as its weight
takes to be read. The work is cut into tiles of output channels, and the inputs of a tile into parts
where there are too few tiles to keep the device busy ("split-K"). Each part is a float32 sum of its
own, and the parts are added in their order: the same numbers give the same bits.

Pointers are those of contiguous tensors. Names in capitals are known when a kernel is compiled.
OVERLAPS: whether it is launched before the one before it ends (see `dependent_launch`).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, unused-ignore"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped]
import triton.language as tl  # type: ignore[import-not-found, import-untyped]

from millstream.model.cuda.dependent_launch import wait_for_previous

_LINE = tl.constexpr(128)  # bytes that a device fetches at a time


@triton.jit
def _fetch_first(
    weight, outputs, inputs, first_channel, first, CHANNELS: tl.constexpr, DEPTH: tl.constexpr
):
    """Has the device's cache fetch what the first turn of a program's loop reads of the weight."""
    BYTES: tl.constexpr = weight.dtype.element_ty.primitive_bitwidth // 8
    NUMBERS: tl.constexpr = _LINE // BYTES
    channels = tl.minimum(first_channel + tl.arange(0, CHANNELS), outputs - 1).to(tl.int64)
    lines = tl.minimum(first + tl.arange(0, DEPTH // NUMBERS) * NUMBERS, inputs - 1)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l",
        [weight + channels[:, None] * inputs + lines[None, :]],
        dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def product_tile(
    x, weight, bias, out, rows, outputs, inputs, ROWS_PAD: tl.constexpr, CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr, STAGES: tl.constexpr, IS_EVEN: tl.constexpr, HAS_BIAS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One program: x [rows, inputs] times CHANNELS rows of weight [outputs, inputs], over one part
    of the inputs, into out [rows, parts, outputs].

    rows: at most ROWS_PAD; if that is 1, numbers are multiplied one by one, else as matrices.
    DEPTH: inputs of one turn of the loop; IS_EVEN: whether every part is a multiple of it.
    STAGES: turns whose weights are on their way at a time. HAS_BIAS: bias [outputs] is added.
    """
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    part, parts = tl.program_id(1), tl.num_programs(1)
    share = tl.cdiv(tl.cdiv(inputs, DEPTH), parts) * DEPTH
    first = part * share
    last = tl.minimum(first + share, inputs)
    is_channel = channels < outputs
    depth, row = tl.arange(0, DEPTH), tl.arange(0, ROWS_PAD)
    weights = weight + channels.to(tl.int64)[:, None] * inputs + depth[None, :]
    if OVERLAPS:  # weights are there before the rows are
        _fetch_first(
            weight, outputs, inputs, tl.program_id(0) * CHANNELS, first, CHANNELS, DEPTH
        )  # fmt: skip
    wait_for_previous(OVERLAPS)
    if ROWS_PAD == 1:
        products = tl.zeros([CHANNELS, DEPTH], tl.float32)
        for start in tl.range(first, last, DEPTH, num_stages=STAGES):
            if IS_EVEN:
                w = tl.load(weights + start, mask=is_channel[:, None], other=0.0)
                numbers = tl.load(x + start + depth)
            else:
                is_input = start + depth < last
                w = tl.load(
                    weights + start, mask=is_channel[:, None] & is_input[None, :], other=0.0
                )
                numbers = tl.load(x + start + depth, mask=is_input, other=0.0)
            products += w.to(tl.float32) * numbers.to(tl.float32)[None, :]
        sums = tl.sum(products, 1)[None, :]
    else:
        sums = tl.zeros([CHANNELS, ROWS_PAD], tl.float32)
        vectors = x + row[None, :] * inputs + depth[:, None]
        is_row = (row < rows)[None, :]
        for start in tl.range(first, last, DEPTH, num_stages=STAGES):
            if IS_EVEN:
                w = tl.load(weights + start, mask=is_channel[:, None], other=0.0)
                numbers = tl.load(vectors + start, mask=is_row, other=0.0)
            else:
                is_input = start + depth < last
                w = tl.load(
                    weights + start, mask=is_channel[:, None] & is_input[None, :], other=0.0
                )
                numbers = tl.load(vectors + start, mask=is_row & is_input[:, None], other=0.0)
            sums = tl.dot(w, numbers, sums, input_precision="ieee")
        sums = tl.trans(sums)
    if HAS_BIAS:
        sums += tl.load(bias + channels, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    where = out + (row.to(tl.int64) * parts + part)[:, None] * outputs + channels[None, :]
    is_result = (row < rows)[:, None] & is_channel[None, :]
    tl.store(where, sums.to(out.dtype.element_ty), mask=is_result)


@triton.jit(do_not_specialize=["parts"])
def join_product(
    sums, bias, out, parts, outputs, TILE: tl.constexpr, HAS_BIAS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One program: TILE results of a row, out [rows, outputs], from sums [rows, parts, outputs]."""
    wait_for_previous(OVERLAPS)
    row = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * TILE + tl.arange(0, TILE)
    is_channel = channels < outputs
    total = tl.zeros([TILE], tl.float32)
    for part in range(parts):
        total += tl.load(sums + (row * parts + part) * outputs + channels, mask=is_channel)
    if HAS_BIAS:
        total += tl.load(bias + channels, mask=is_channel, other=0.0).to(tl.float32)
    tl.store(out + row * outputs + channels, total.to(out.dtype.element_ty), mask=is_channel)
