"""The functions of compiled kernels in plain torch: what they mean, and what kernels are tested by.

Kernels for the CPU are compared with these functions before they are used, CUDA backends with the
two for attention. A model can also be run by them, in place of kernels, on any device.

Rule: same names, same signatures, same rounding to the tensors' dtype as the operators in
`operators.cpp`, on any device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from millstream.model.attention import LayerOptions, attend_dense, causal_mask

_CHANNELS = 64  # output channels of a block of weights
_STEPS = {torch.bfloat16: 2, torch.int8: 4}


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
    chunk: int | None = None,
) -> Tensor:
    """Attention of one token per sequence over its cached keys, its own included.

    query [b, heads, d]; caches [blocks, block_size, kv_heads, d or dv]; block_tables [b, n] (int64
    or int32; entries past a row's position are not looked at); positions [b]: of the new tokens.
    Gives [b, heads, dv]. scale, window, softcap, sinks, chunk: as in `LayerOptions`.
    """
    num_rows, num_blocks = block_tables.shape
    block_size = key_cache.shape[1]
    keys = torch.arange(num_blocks * block_size, device=query.device)
    mask = keys <= positions.unsqueeze(1)
    tables = torch.where(mask[:, ::block_size], block_tables, block_tables[:, :1]).flatten()

    def gather(cache: Tensor) -> Tensor:
        found = cache.index_select(0, tables)
        return found.view(num_rows, num_blocks * block_size, *cache.shape[2:]).transpose(1, 2)

    options = LayerOptions(scale, window, softcap=softcap, sinks=sinks, chunk=chunk)
    if (first := options.reach.first(positions.unsqueeze(1))) is not None:
        mask &= keys >= first
    return attend_dense(
        query.unsqueeze(2),
        gather(key_cache),
        gather(value_cache),
        mask[:, None, None, :],
        options,
    ).squeeze(2)


def paged_attention_prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    starts: Tensor,
    lengths: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Attention of prompt chunks over the cached keys of their sequences, their own included.

    query [T, heads, d]: the tokens of one chunk after the other; block_tables [c, n] (entries past
    a chunk's end are not looked at); starts [c]: position of a chunk's first token; lengths [c]:
    its tokens, T in all. Caches, result and the rest as in `paged_attention_decode`.
    """
    options = LayerOptions(scale, window, softcap=softcap, sinks=sinks, chunk=chunk)
    block_size, out = key_cache.shape[1], []
    chunks = zip(torch.split(query, lengths.tolist()), block_tables, starts.tolist(), strict=True)
    for rows, table, start in chunks:
        total = start + len(rows)
        blocks = table[: -(-total // block_size)]
        keys, values = (
            cache.index_select(0, blocks).flatten(0, 1)[:total].transpose(0, 1).unsqueeze(0)
            for cache in (key_cache, value_cache)
        )
        mask = causal_mask(start=start, length=len(rows), total=total, reach=options.reach)
        found = attend_dense(
            rows.transpose(0, 1).unsqueeze(0), keys, values, mask.to(query.device), options
        )
        out.append(found[0].transpose(0, 1))
    return torch.cat(out)


def fast_products() -> tuple[bool, bool, bool, bool]:
    """Which are the fastest there is on this processor: `packed_linear`, `int8_linear` with rows of
    8 bits, the same with rows of 12 bits, `grouped_linear`."""
    return False, False, False, False


def use_threads(count: int) -> None:
    """On which threads kernels called by this thread run: so many of their own; 0: torch's; -1:
    as many of their own as torch has. Plain torch has no others."""


def pack_weight(weight: Tensor, *, activation_bits: int = 8) -> Tensor:
    """weight [outputs, inputs], bfloat16 or int8, as the products below read it.

    Gives [blocks, steps, 64, s]: blocks of 64 output channels, of each channel s inputs side by
    side, step by step; zero where there are none. s is 2 for bfloat16; of int8 it is 4, or 2 if
    rows are to be rounded to 12 activation_bits rather than 8.
    """
    outputs, inputs = weight.shape
    step = 2 if activation_bits == 12 else _STEPS[weight.dtype]
    padded = F.pad(weight, (0, -inputs % step, 0, -outputs % _CHANNELS))
    blocks = padded.view(-1, _CHANNELS, padded.shape[1] // step, step)
    return blocks.transpose(1, 2).contiguous()


def packed_linear(x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """x [T, inputs], a packed bfloat16 weight, bias [outputs] -> [T, outputs].

    Products and bias are added up in float and rounded once.
    """
    weight = _unpacked(packed, outputs, x.shape[1]).float()
    return F.linear(x.float(), weight, None if bias is None else bias.float()).to(x.dtype)


def int8_linear(
    x: Tensor, packed: Tensor, sums: Tensor, scales: Tensor, bias: Tensor | None = None
) -> Tensor:
    """x [T, inputs], a packed int8 weight, bias [outputs] -> [T, outputs].

    Rows of x are rounded to whole numbers, each with a scale of its own: -127 .. 127, or by words
    -2047 .. 2047 (less from 8,261 inputs on: sums are 32 bits). sums [outputs] (int32): of each
    output channel's weights; scales [outputs] (float): theirs.
    """
    wide, most = x.float(), 127
    if packed.shape[3] == 2:
        most = min(2047, (2**31 - 1) // (127 * x.shape[1]))
    scale = (wide.abs().amax(-1, keepdim=True) * (1 / most)).clamp_min(1e-7)
    rounded = (wide / scale).round()
    # Doubles hold these sums exactly.
    products = rounded.double() @ _unpacked(packed, len(scales), x.shape[1]).double().t()
    out = products.float() * scale * scales
    return (out if bias is None else out + bias.float()).to(x.dtype)


def _unpacked(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    return packed.transpose(1, 2).reshape(-1, packed.shape[1] * packed.shape[3])[:outputs, :inputs]


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
    """x, residual [T, n], weight [n] -> rms_norm(x + residual) and x + residual, [T, n] each."""
    total = x + residual
    return rms_norm(total, weight, eps, unit_offset=unit_offset), total


def best_tokens(x: Tensor) -> Tensor:
    """x [n, size] -> the index of each row's largest number [n] (int64), the first of equals; -1
    where that is not finite, or where the row holds NaN."""
    values, indices = x.max(dim=-1)
    return indices.masked_fill(~values.isfinite(), -1)


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
    turned = rotate(query, cos, sin), rotate(key, cos, sin)
    key_cache.flatten(0, 1).index_copy_(0, slots.long(), turned[1])
    value_cache.flatten(0, 1).index_copy_(0, slots.long(), value)
    return turned


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [T, heads, d] with its first r <= d dimensions turned by the angles of cos, sin [T, r].

    Dimension i turns with dimension i + r / 2 (https://arxiv.org/abs/2104.09864, in the layout of
    GPT-NeoX).
    """
    turning, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turning.chunk(2, dim=-1)
    half_turned = torch.cat((-second, first), dim=-1)
    return torch.cat((turning * cos.unsqueeze(1) + half_turned * sin.unsqueeze(1), rest), dim=-1)
