"""The small operations between a decoder layer's products, each as one launch of a Triton kernel.

A layer is ten launches with them: its four merged products, queries and keys to their places, two
for attention, the gate, and twice a sum with the norm that follows it.
What they compute is written in `model/reference.py`. With `overlaps` a kernel is launched before
the one before it ends, as `dependent_launch` says.
"""

from __future__ import annotations

from functools import partial

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from millstream.model.cuda import triton_layer_kernels as kernels
from millstream.model.cuda.dependent_launch import launch_options
from millstream.model.layer_operations import LayerOperations, Norm

_GATE_TILE = 1024


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False, overlaps: bool = False
) -> Tensor:
    """`reference.rms_norm()`: x [..., n], weight [n] -> [..., n]."""
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(rows)
    _norm(
        rows,
        rows,
        weight,
        out,
        rows,
        eps=eps,
        unit_offset=unit_offset,
        adds=False,
        overlaps=overlaps,
    )
    return out.view(x.shape)


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    *,
    eps: float,
    unit_offset: bool = False,
    overlaps: bool = False,
) -> tuple[Tensor, Tensor]:
    """`reference.add_rms_norm()`: x, residual [T, n], weight [n] -> [T, n] each."""
    out, total = torch.empty_like(residual), torch.empty_like(residual)
    _norm(
        x,
        residual.contiguous(),
        weight,
        out,
        total,
        eps=eps,
        unit_offset=unit_offset,
        adds=True,
        overlaps=overlaps,
    )
    return out, total


def _norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    out: Tensor,
    total: Tensor,
    *,
    eps: float,
    unit_offset: bool,
    adds: bool,
    overlaps: bool,
) -> None:
    rows, size = x.shape
    pad = triton.next_power_of_2(size)
    if rows:
        kernels.norm_row[(rows,)](
            x=x,
            residual=residual,
            weight=weight,
            out=out,
            total=total,
            eps=eps,
            x_stride=x.stride(0),
            SIZE=size,
            PAD=pad,
            OFFSET=unit_offset,
            ADD=adds,
            num_warps=_warps(pad),
            **launch_options(overlaps=overlaps),
        )


def silu_mul(merged: Tensor, *, overlaps: bool = False) -> Tensor:
    """`reference.silu_mul()`: merged [T, 2 * n] -> [T, n]."""
    return _gate(merged, is_gelu=False, overlaps=overlaps)


def gelu_tanh_mul(merged: Tensor, *, overlaps: bool = False) -> Tensor:
    """`reference.gelu_tanh_mul()`: merged [T, 2 * n] -> [T, n]."""
    return _gate(merged, is_gelu=True, overlaps=overlaps)


def _gate(merged: Tensor, *, is_gelu: bool, overlaps: bool) -> Tensor:
    merged = merged.contiguous()
    rows, size = merged.shape[0], merged.shape[1] // 2
    out = merged.new_empty(rows, size)
    if rows:
        grid = (rows, triton.cdiv(size, _GATE_TILE))
        kernels.gate_tile[grid](
            merged=merged,
            out=out,
            SIZE=size,
            TILE=_GATE_TILE,
            GELU=is_gelu,
            **launch_options(overlaps=overlaps),
        )
    return out


def heads_to_cache(
    merged: Tensor,
    *,
    heads: int,
    kv_heads: int,
    q_norm: Norm | None,
    k_norm: Norm | None,
    angles: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    overlaps: bool = False,
) -> Tensor:
    """`layer_operations.heads_to_cache()`: merged [T, m * d] -> [T, heads, d]."""
    rows, dim = len(merged), key_cache.shape[-1]
    query = merged.new_empty(rows, heads, dim)
    cos, sin = angles if angles is not None else (merged, merged)
    q, k = (norm or Norm(merged, 0.0, unit_offset=False) for norm in (q_norm, k_norm))
    if rows:
        kernels.place_head[(rows, heads + 2 * kv_heads)](
            merged=merged,
            q_weight=q.weight,
            k_weight=k.weight,
            cos=cos,
            sin=sin,
            slots=slots,
            query=query,
            keys=key_cache,
            values=value_cache,
            q_eps=q.eps,
            k_eps=k.eps,
            merged_stride=merged.stride(0),
            angle_stride=cos.stride(0),
            HEADS=heads,
            KV_HEADS=kv_heads,
            DIM=dim,
            PAD=triton.next_power_of_2(dim),
            TURNING=0 if angles is None else cos.shape[-1],
            Q_NORM=q_norm is not None,
            K_NORM=k_norm is not None,
            Q_OFFSET=q.unit_offset,
            K_OFFSET=k.unit_offset,
            num_warps=1,
            **launch_options(overlaps=overlaps),
        )
    return query


def _warps(size: int) -> int:
    """Warps of a program that holds `size` numbers: eight numbers a thread, up to 16 warps."""
    return int(min(max(size // 256, 1), 16))


def layer_operations(*, overlaps: bool = False) -> LayerOperations:
    """The functions of this module."""
    return LayerOperations(
        rms_norm=partial(rms_norm, overlaps=overlaps),
        add_rms_norm=partial(add_rms_norm, overlaps=overlaps),
        silu_mul=partial(silu_mul, overlaps=overlaps),
        gelu_tanh_mul=partial(gelu_tanh_mul, overlaps=overlaps),
        heads_to_cache=partial(heads_to_cache, overlaps=overlaps),
    )
