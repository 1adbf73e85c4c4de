"""The small operations of decoder layers in Triton; `triton_layers` launches them.

Pointers are those of tensors whose last dimension is contiguous. Names in capitals are known when a
kernel is compiled: sizes of the model, and those sizes filled up to powers of two (PAD). Row counts
are no arguments at all: a program computes what its number says. OVERLAPS: whether the kernel is
launched before the one before it ends (see `dependent_launch`).

Rule: what is rounded, and when, is written in `model/reference.py`: same numbers, same steps.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, unused-ignore"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped]
import triton.language as tl  # type: ignore[import-not-found, import-untyped]

from millstream.model.cuda.dependent_launch import wait_for_previous


@triton.jit
def _normal(
    x, weight, is_there, eps, SIZE: tl.constexpr, OFFSET: tl.constexpr, DTYPE: tl.constexpr
):
    """x [n] (float32) over its root mean square, times weight [n]: rounded to DTYPE, as float32."""
    mean = tl.sum(tl.where(is_there, x * x, 0.0), 0) / SIZE
    normal = x * (1.0 / tl.sqrt(mean + eps))
    if OFFSET:  # noqa: SIM108 - only one branch is compiled
        normal = normal * (1.0 + weight)
    else:
        normal = normal.to(DTYPE).to(tl.float32) * weight
    return normal.to(DTYPE).to(tl.float32)


@triton.jit(do_not_specialize=["x_stride"])
def norm_row(
    x, residual, weight, out, total, eps, x_stride, SIZE: tl.constexpr, PAD: tl.constexpr,
    OFFSET: tl.constexpr, ADD: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One program: a row of `out`; with ADD, of x + residual, which is stored as `total`."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PAD)
    is_there = columns < SIZE
    dtype = out.dtype.element_ty
    weights = tl.load(weight + columns, mask=is_there, other=0.0).to(tl.float32)
    wait_for_previous(OVERLAPS)
    numbers = tl.load(x + row * x_stride + columns, mask=is_there, other=0.0).to(tl.float32)
    if ADD:
        added = tl.load(residual + row * SIZE + columns, mask=is_there, other=0.0).to(tl.float32)
        numbers = (numbers + added).to(dtype)
        tl.store(total + row * SIZE + columns, numbers, mask=is_there)
        numbers = numbers.to(tl.float32)
    normal = _normal(numbers, weights, is_there, eps, SIZE, OFFSET, dtype)
    tl.store(out + row * SIZE + columns, normal.to(dtype), mask=is_there)


@triton.jit
def gate_tile(
    merged, out, SIZE: tl.constexpr, TILE: tl.constexpr, GELU: tl.constexpr, OVERLAPS: tl.constexpr
):
    """One program: TILE numbers of a row of activation(gate) * up."""
    wait_for_previous(OVERLAPS)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    is_there = columns < SIZE
    dtype = out.dtype.element_ty
    gate = tl.load(merged + row * 2 * SIZE + columns, mask=is_there, other=0.0).to(tl.float32)
    up = tl.load(merged + (row * 2 + 1) * SIZE + columns, mask=is_there, other=0.0)
    if GELU:
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        active = gate * tl.sigmoid(2.0 * inner)  # (1 + tanh(x)) / 2
    else:
        active = gate * tl.sigmoid(gate)
    result = active.to(dtype).to(tl.float32) * up.to(tl.float32)
    tl.store(out + row * SIZE + columns, result.to(dtype), mask=is_there)


@triton.jit(do_not_specialize=["merged_stride", "angle_stride"])
def place_head(
    merged, q_weight, k_weight, cos, sin, slots, query, keys, values, q_eps, k_eps,
    merged_stride, angle_stride, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr,
    PAD: tl.constexpr, TURNING: tl.constexpr, Q_NORM: tl.constexpr, K_NORM: tl.constexpr,
    Q_OFFSET: tl.constexpr, K_OFFSET: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One program: one head of one token, out of queries, keys and values side by side.

    A query or key is normalised and turned where the model does so; a query goes to `query`
    [T, HEADS, DIM], a key or value to the token's slot in the cache. TURNING: the dimensions that
    turn, in two halves; 0: none.
    """
    wait_for_previous(OVERLAPS)
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dims = tl.arange(0, PAD)
    is_there = dims < DIM
    half: tl.constexpr = TURNING // 2
    # Where the number lies that each turns with.
    other = tl.where(dims < half, dims + half, tl.where(dims < TURNING, dims - half, dims))
    dtype = query.dtype.element_ty
    source = merged + row * merged_stride + head * DIM
    own = tl.load(source + dims, mask=is_there, other=0.0).to(tl.float32)
    partner = tl.load(source + other, mask=is_there, other=0.0).to(tl.float32)
    if Q_NORM and head < HEADS:
        weight = tl.load(q_weight + dims, mask=is_there, other=0.0).to(tl.float32)
        swapped = tl.load(q_weight + other, mask=is_there, other=0.0).to(tl.float32)
        own_normal = _normal(own, weight, is_there, q_eps, DIM, Q_OFFSET, dtype)
        partner = _normal(partner, swapped, is_there, q_eps, DIM, Q_OFFSET, dtype)
        own = own_normal
    if K_NORM and (head >= HEADS) & (head < HEADS + KV_HEADS):
        weight = tl.load(k_weight + dims, mask=is_there, other=0.0).to(tl.float32)
        swapped = tl.load(k_weight + other, mask=is_there, other=0.0).to(tl.float32)
        own_normal = _normal(own, weight, is_there, k_eps, DIM, K_OFFSET, dtype)
        partner = _normal(partner, swapped, is_there, k_eps, DIM, K_OFFSET, dtype)
        own = own_normal
    if TURNING > 0 and head < HEADS + KV_HEADS:
        turns = dims < TURNING
        c = tl.load(cos + row * angle_stride + dims, mask=turns, other=1.0).to(tl.float32)
        s = tl.load(sin + row * angle_stride + dims, mask=turns, other=0.0).to(tl.float32)
        signed = tl.where(dims < half, -partner, partner)
        straight, across = (own * c).to(dtype), (signed * s).to(dtype)
        turned = (straight.to(tl.float32) + across.to(tl.float32)).to(dtype).to(tl.float32)
        own = tl.where(turns, turned, own)
    result = own.to(dtype)
    if head < HEADS:
        tl.store(query + (row * HEADS + head) * DIM + dims, result, mask=is_there)
    else:
        slot = tl.load(slots + row).to(tl.int64)
        if head < HEADS + KV_HEADS:
            place = keys + (slot * KV_HEADS + head - HEADS) * DIM
        else:
            place = values + (slot * KV_HEADS + head - HEADS - KV_HEADS) * DIM
        tl.store(place + dims, result, mask=is_there)
