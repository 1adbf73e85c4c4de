"""Linear layers as the compiled products compute them, from weights laid out once.

Rule: a row's result depends on that row only, bit for bit, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from millstream.model.native import Kernels


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


class NativeInt8Linear(nn.Module):
    """An int8 weight with a scale per output channel; rows are rounded to int8 on their way in."""

    def __init__(self, quantized: Tensor, scales: Tensor, bias: Any, kernels: Kernels) -> None:
        """quantized [outputs, inputs], int8; scales [outputs]."""
        super().__init__()
        self.out_features, self.in_features = quantized.shape
        # A plain tensor: merged() gives its copy another one, which a parameter would share.
        self.bias = None if bias is None else bias.detach()
        self.packed = kernels.pack_weight(quantized.contiguous())
        self.sums = quantized.sum(1, dtype=torch.int32)
        self.scales = scales.flatten().float().contiguous()
        self._multiply = kernels.int8_linear

    @staticmethod
    def can_merge(linears: Sequence[NativeInt8Linear]) -> bool:
        """Whether all but the last end with a block of channels."""
        return all(linear.out_features % linear.packed.shape[2] == 0 for linear in linears[:-1])

    @classmethod
    def merged(cls, linears: Sequence[NativeInt8Linear]) -> NativeInt8Linear:
        """One layer whose outputs are those of `linears` side by side. They can_merge()."""
        made = copy(linears[0])
        made.out_features = sum(linear.out_features for linear in linears)
        made.packed = torch.cat([linear.packed for linear in linears])
        made.sums = torch.cat([linear.sums for linear in linears])
        made.scales = torch.cat([linear.scales for linear in linears])
        if any(linear.bias is not None for linear in linears):
            like = next(linear.bias for linear in linears if linear.bias is not None)
            made.bias = torch.cat(
                [
                    like.new_zeros(linear.out_features) if linear.bias is None else linear.bias
                    for linear in linears
                ]
            )
        return made

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden if hidden.dim() == 2 else hidden.reshape(-1, self.in_features)
        out = self._multiply(rows, self.packed, self.sums, self.scales, self.bias)
        return out if hidden.dim() == 2 else out.view(*hidden.shape[:-1], self.out_features)
