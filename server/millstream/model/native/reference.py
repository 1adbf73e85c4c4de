"""The kernels of this package in plain torch: what they mean, and what runs where they cannot.

Rule: same names, same signatures, same rounding to the tensors' dtype as the operators in
`operators.cpp`, on any device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from millstream.model.attention import LayerOptions, attend_dense


def paged_attention_decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    positions: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of one token per sequence over its cached keys, its own included.

    query [b, heads, d]; caches [blocks, block_size, kv_heads, d or dv]; block_tables [b, n] (int64
    or int32; entries past a row's position are not looked at); positions [b]: of the new tokens.
    Gives [b, heads, dv]. scale, window, softcap, sinks: as in `LayerOptions`.
    """
    num_rows, num_blocks = block_tables.shape
    block_size = key_cache.shape[1]
    keys = torch.arange(num_blocks * block_size, device=query.device)
    mask = keys <= positions.unsqueeze(1)
    tables = torch.where(mask[:, ::block_size], block_tables, block_tables[:, :1]).flatten()

    def gather(cache: Tensor) -> Tensor:
        found = cache.index_select(0, tables)
        return found.view(num_rows, num_blocks * block_size, *cache.shape[2:]).transpose(1, 2)

    if window is not None:
        mask &= keys > positions.unsqueeze(1) - window
    options = LayerOptions(scale=scale, window=window, softcap=softcap, sinks=sinks)
    return attend_dense(
        query.unsqueeze(2),
        gather(key_cache),
        gather(value_cache),
        mask[:, None, None, :],
        options,
    ).squeeze(2)


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> Tensor:
    """x [..., n] over its root mean square, times weight [n]; computed in float.

    unit_offset: times 1 + weight and rounded once, as Gemma does; otherwise rounded to the dtype
    before the weight and after it, as Llama and most others do.
    """
    wide = x.float()
    normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if unit_offset:
        return (normal * (1.0 + weight.float())).to(x.dtype)
    return weight * normal.to(x.dtype)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, *, eps: float, unit_offset: bool = False
) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual)."""
    total = x + residual
    return rms_norm(total, weight, eps, unit_offset=unit_offset), total


def silu_mul(merged: Tensor) -> Tensor:
    """merged [T, 2 * n], gate then up -> silu(gate) * up, [T, n]."""
    gate, up = merged.chunk(2, dim=-1)
    return F.silu(gate) * up


def gelu_tanh_mul(merged: Tensor) -> Tensor:
    """merged [T, 2 * n], gate then up -> gelu(gate) * up with the tanh formula, [T, n]."""
    gate, up = merged.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def rotary_to_cache(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
) -> tuple[Tensor, Tensor]:
    """Rotates query and key, stores key and value; returns the rotated query and key.

    query [T, heads, d], key [T, kv_heads, d], value [T, kv_heads, dv]; cos, sin [T, r]: the first
    r <= d dimensions turn, in two halves (GPT-NeoX's layout); slots [T]: where each token goes in
    the caches, counted in tokens.
    """
    turned = _rotate(query, cos, sin), _rotate(key, cos, sin)
    key_cache.flatten(0, 1).index_copy_(0, slots.long(), turned[1])
    value_cache.flatten(0, 1).index_copy_(0, slots.long(), value)
    return turned


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turning, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turning.chunk(2, dim=-1)
    half_turned = torch.cat((-second, first), dim=-1)
    return torch.cat((turning * cos.unsqueeze(1) + half_turned * sin.unsqueeze(1), rest), dim=-1)
