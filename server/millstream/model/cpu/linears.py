"""Linear layers as the compiled products compute them, from weights laid out once.

Rule: a row's result depends on that row only, bit for bit, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from millstream.model.cpu.kernels import Kernels


def joined_biases(biases: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor | None:
    """Side by side, zeros of that size where a linear layer has none; None if none has."""
    like = next((bias for bias in biases if bias is not None), None)
    if like is None:
        return None
    pairs = zip(biases, sizes, strict=True)
    return torch.cat([like.new_zeros(size) if bias is None else bias for bias, size in pairs])


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
    """An int8 weight with a scale per output channel; rows are rounded on their way in: to 8 bits,
    or to 12 for words."""

    def __init__(
        self,
        quantized: Tensor,
        scales: Tensor,
        bias: Any,
        kernels: Kernels,
        *,
        for_words: bool = False,
    ) -> None:
        """quantized [outputs, inputs], int8; scales [outputs]."""
        super().__init__()
        self.out_features, self.in_features = quantized.shape
        # A plain tensor: merged() gives its copy another one, which a parameter would share.
        self.bias = None if bias is None else bias.detach()
        self.packed = kernels.pack_weight(quantized.contiguous(), for_words=for_words)
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
        sizes = [linear.out_features for linear in linears]
        made.out_features = sum(sizes)
        made.packed = torch.cat([linear.packed for linear in linears])
        made.sums = torch.cat([linear.sums for linear in linears])
        made.scales = torch.cat([linear.scales for linear in linears])
        made.bias = joined_biases([linear.bias for linear in linears], sizes)
        return made

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden if hidden.dim() == 2 else hidden.reshape(-1, self.in_features)
        out = self._multiply(rows, self.packed, self.sums, self.scales, self.bias)
        return out if hidden.dim() == 2 else out.view(*hidden.shape[:-1], self.out_features)
