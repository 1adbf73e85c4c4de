"""Linear layers whose weights are laid out once, for the product that is fastest on a processor.

torch reorders a bfloat16 weight in every call of `F.linear`, and has no fast product for torchao's
int8 weights outside of its compiler. Each class here takes the place of a layer of the model and
computes what that layer computes; what differs is who multiplies:

    weight      torch's oneDNN    the compiled kernels
    bfloat16    PackedLinear      NativeLinear
    int8        Int8Linear        NativeInt8Linear
    in groups                     NativeGroupedLinear

A quantised layer rounds its rows on their way in. A row x becomes whole numbers q of at most
`activation_bits` bits and a scale s, x = s q; the weight has whole numbers w and a scale t per
output channel (in groups, more than that: see grouped.py). The product of q
and w is exact, and s t times it is the result.

Rule: a row's result depends on that row only; with the kernels' products, bit for bit, whatever the
number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any, Literal, Self, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from millstream.model.cpu.kernels import Kernels
from millstream.model.grouped import GroupedLinear

BLOCK_CHANNELS = 64  # output channels that the kernels multiply at a time

ONEDNN_ROWS = 16
"""oneDNN compiles a product for each number of rows that it meets: only multiples of this are asked
for, and fewer."""

UNSIGNED_ZERO = 128
"""The unsigned byte that stands for 0, as oneDNN is told."""


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer and nothing more."""
    # A quantised weight is a class of its own that only claims to be bfloat16.
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter


@torch.no_grad()
def merge(linears: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer whose outputs are those of `linears` side by side; a copy."""
    weight = torch.cat([linear.weight for linear in linears])
    merged = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
    merged.weight = nn.Parameter(weight, requires_grad=False)
    sizes = [linear.out_features for linear in linears]
    bias = joined_biases([linear.bias for linear in linears], sizes)
    if bias is not None:
        merged.bias = nn.Parameter(bias, requires_grad=False)
    return merged


def joined_biases(biases: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor | None:
    """Biases [size] of the model's dtype side by side, [sum of sizes]; None if no layer has one.

    A layer without a bias gets zeros.
    """
    like = next((bias for bias in biases if bias is not None), None)
    if like is None:
        return None
    pairs = zip(biases, sizes, strict=True)
    return torch.cat([like.new_zeros(size) if bias is None else bias for bias, size in pairs])


class PackedLinear(nn.Module):
    """Computes what the nn.Linear it replaces computes; holds the weight only in packed form."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        weight = linear.weight.detach()
        # Not a buffer: a packed tensor can be neither moved, converted nor saved.
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        return self.multiply(hidden, self.packed, self.bias)

    @staticmethod
    def multiply(hidden: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        """hidden [..., inputs] times a weight in oneDNN's layout, plus bias [outputs]."""
        product = torch.ops.mkldnn._linear_pointwise
        num_rows = hidden.shape[:-1].numel()
        num_missing = -num_rows % ONEDNN_ROWS
        out: Tensor
        if num_rows <= ONEDNN_ROWS or not num_missing:
            out = product(hidden, packed, bias, "none", [], "")
            return out
        rows = F.pad(hidden.reshape(num_rows, -1), (0, 0, 0, num_missing))
        out = product(rows, packed, bias, "none", [], "")
        return out[:num_rows].view(*hidden.shape[:-1], -1)


@cache
def has_saturating_sums() -> bool:
    """Whether oneDNN's int8 product is wrong for large numbers, as on x86 without VNNI.

    There two products of a byte and a signed byte are added up in 16 bits, and the sum stops at the
    largest number: 2 * 255 * 127 is more than that, 2 * 127 * 128 is not. Raises AttributeError or
    RuntimeError where the operators are missing.
    """
    width = 64
    weight = torch.full((16, width), 127, dtype=torch.int8)
    rows = torch.full((1, width), 255, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    found = _int8_product(rows, packed, torch.ones(16), zero=UNSIGNED_ZERO)
    return bool((found != width * 127 * 127).any())


def _int8_product(rows: Tensor, packed: Tensor, scales: Tensor, *, zero: int) -> Tensor:
    """(rows - zero) times a packed int8 weight, times its scales.

    rows [..., inputs] uint8; scales [outputs] float32. Gives [..., outputs] float32.
    """
    zero_points = torch.zeros(len(scales), dtype=torch.int64)
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, zero, packed, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return out


class Int8Linear(nn.Module):
    """Computes what torchao's dynamic int8 linear computes, with steadier rounding of its rows.

    Where large sums saturate, a row is multiplied in two parts that do not: its lower seven bits,
    and its top bit.
    """

    def __init__(self, linear: nn.Linear, *, in_parts: bool | None = None) -> None:
        """in_parts: whether rows are multiplied in two parts; None: where they have to be."""
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        weight: Any = linear.weight
        # Not buffers: a packed tensor can be neither moved, converted nor saved.
        self._packed = torch.ops.onednn.qlinear_prepack(weight.qdata, None)
        self._scales = weight.scale.flatten().float()
        self._in_parts = has_saturating_sums() if in_parts is None else in_parts

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        values = hidden.float()
        # Intentional: torchao divides by 127.5, so a row's largest value always sits where rounding
        # goes either way, and noise in its last bit becomes a whole step.
        scale = values.abs().amax(-1, keepdim=True).mul_(1 / 127).clamp_min_(1e-7)
        rounded = (values / scale).round_().to(torch.int8)
        # oneDNN's fast product takes unsigned activations; flipping the top bit adds 128.
        shifted = rounded.view(torch.uint8).bitwise_xor_(UNSIGNED_ZERO)
        if self._in_parts:
            # shifted - 128 = lower seven bits + 128 * (top bit - 1)
            top = _int8_product(shifted >> 7, self._packed, self._scales, zero=1)
            out = _int8_product(shifted & 127, self._packed, self._scales, zero=0)
            out = out.add_(top.mul_(128)).mul_(scale)
        else:
            out = _int8_product(shifted, self._packed, self._scales, zero=UNSIGNED_ZERO)
            out = out.mul_(scale)
        if self.bias is not None:
            out += self.bias
        return out.to(hidden.dtype)


class NativeLinear(nn.Module):
    """Computes what the bfloat16 nn.Linear it replaces computes; holds only the packed weight."""

    def __init__(self, linear: nn.Linear, kernels: Kernels) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        # Not a buffer: it must be neither moved nor converted.
        self.packed = kernels.pack_weight(linear.weight.detach().contiguous())
        self._multiply = kernels.packed_linear

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden if hidden.dim() == 2 else hidden.reshape(-1, self.in_features)
        out = self._multiply(rows, self.packed, self.out_features, self.bias)
        return out if hidden.dim() == 2 else out.view(*hidden.shape[:-1], self.out_features)


class NativeQuantizedLinear(nn.Module):
    """A linear layer whose quantised weight the compiled kernels multiply.

    packed: blocks of 64 output channels first; per_channel: what the product needs of each output
    channel, in the order of its arguments.
    """

    def __init__(self, size: Sequence[int], bias: Any, multiply: Any, *operands: Tensor) -> None:
        """size: outputs, inputs; bias [outputs] or None; operands: packed, then per_channel."""
        super().__init__()
        self.out_features, self.in_features = size
        # A plain tensor: merged() gives its copy another one, which a parameter would share.
        self.bias = None if bias is None else bias.detach()
        self.packed, *rest = operands
        self.per_channel, self._multiply = tuple(rest), multiply

    @staticmethod
    def can_merge(linears: Sequence[NativeQuantizedLinear]) -> bool:
        """Whether they are of one format, and all but the last fill their last block."""
        formats = {(type(one), one.packed.dtype, one.packed.shape[1:]) for one in linears}
        return len(formats) == 1 and all(
            linear.out_features % BLOCK_CHANNELS == 0 for linear in linears[:-1]
        )

    @classmethod
    def merged(cls, linears: Sequence[Self]) -> Self:
        """One layer whose outputs are those of `linears` side by side; see `can_merge()`."""
        merged = copy(linears[0])
        sizes = [linear.out_features for linear in linears]
        merged.out_features = sum(sizes)
        merged.packed = torch.cat([linear.packed for linear in linears])
        columns = zip(*(linear.per_channel for linear in linears), strict=True)
        merged.per_channel = tuple(torch.cat(column) for column in columns)
        merged.bias = joined_biases([linear.bias for linear in linears], sizes)
        return merged

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden if hidden.dim() == 2 else hidden.reshape(-1, self.in_features)
        out: Tensor = self._multiply(rows, self.packed, *self.per_channel, self.bias)
        return out if hidden.dim() == 2 else out.view(*hidden.shape[:-1], self.out_features)


class NativeInt8Linear(NativeQuantizedLinear):
    """A linear layer by an int8 weight with a scale per output channel.

    Rows are rounded to 8 bits, or to 12 where the layer's errors would reach the logits directly.
    """

    def __init__(
        self,
        quantized: Tensor,
        scales: Tensor,
        bias: Any,
        kernels: Kernels,
        *,
        activation_bits: Literal[8, 12] = 8,
    ) -> None:
        """quantized [outputs, inputs], int8; scales [outputs] or [outputs, 1]; bias [outputs]."""
        packed = kernels.pack_weight(quantized.contiguous(), activation_bits=activation_bits)
        sums, scales = quantized.sum(1, dtype=torch.int32), scales.flatten().float().contiguous()
        super().__init__(quantized.shape, bias, kernels.int8_linear, packed, sums, scales)


class NativeGroupedLinear(NativeQuantizedLinear):
    """A GroupedLinear by the compiled kernels; shares its weight."""

    def __init__(self, linear: GroupedLinear, kernels: Kernels) -> None:
        size, operands = (linear.out_features, linear.in_features), (linear.packed, linear.scales)
        super().__init__(size, linear.bias, kernels.grouped_linear, *operands)
