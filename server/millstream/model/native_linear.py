"""Linear layers as the compiled products compute them, from weights laid out once.

Rule: a row's result depends on that row only, bit for bit, whatever the number of rows.
"""

from __future__ import annotations

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
        self.bias = bias
        self.packed = kernels.pack_weight(quantized.contiguous())
        self._sums = quantized.sum(1, dtype=torch.int32)
        self._scales = scales.flatten().float().contiguous()
        self._multiply = kernels.int8_linear

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden if hidden.dim() == 2 else hidden.reshape(-1, self.in_features)
        out = self._multiply(rows, self.packed, self._sums, self._scales, self.bias)
        return out if hidden.dim() == 2 else out.view(*hidden.shape[:-1], self.out_features)
