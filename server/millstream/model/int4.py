"""Weights of four bits: how they are chosen, how they lie, and what a product with them is.

32 inputs of an output channel are a group. A weight is a whole number from -8 to 7, times a whole
number of eight bits that its group shares, times a scale that its channel has. So a product with a
row of whole numbers is exact but for the last scale, whoever computes it and in whatever order.
That takes 4.25 bits a weight.

`int4_linear` is the meaning of the compiled kernel of that name, in plain torch.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 32  # inputs
BITS = 4 + 8 / GROUP  # of a weight, its share of the multiplier included
_CHANNELS = 64  # output channels of a block
_NUMBER_BYTES = _CHANNELS * GROUP // 2
_FRACTIONS = (1.0, 0.9, 0.8)  # of the step at which a group's largest weight is -8
_AT_ONCE = 2**15
"""Weights that a thread quantises at a time: so few that torch does not share an operation among
its own threads, which would wait for each other tens of thousands of times."""


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [outputs, inputs] in four bits: packed as `pack_int4` does, and scales [outputs].

    Each group takes the step with the least squared error among a few; with any numbers n for the
    weights w, the best step is w n / n n.
    """
    outputs, inputs = weight.shape
    numbers = torch.empty(outputs, inputs, dtype=torch.int8)
    multipliers = torch.empty(outputs, -(-inputs // GROUP), dtype=torch.int8)
    scales = torch.empty(outputs)
    # What a group adds up to is at most 8 * 127 * 32; all of them must fit into 32 bits.
    most = min(127, (2**31 - 1) // (8 * 127 * GROUP * multipliers.shape[1]))
    at_once = max(1, _AT_ONCE // max(inputs, 1))

    @torch.inference_mode()
    def choose(start: int) -> None:
        rows = slice(start, start + at_once)
        # Groups side by side: operations on [32, n] are several times as fast as on [n, 32].
        some = F.pad(weight[rows].float(), (0, -inputs % GROUP)).view(-1, GROUP).t().contiguous()
        steps = _best_steps(some).view(-1, multipliers.shape[1])
        scale = steps.abs().amax(1, keepdim=True).div_(most).clamp_min_(1e-30)
        by = (steps / scale).round_()
        inverse = torch.where(by == 0, 0.0, 1 / (by * scale)).flatten()
        found = some.mul_(inverse).round_().clamp_(-8, 7).to(torch.int8).t()
        numbers[rows] = found.reshape(len(steps), -1)[:, :inputs]
        multipliers[rows] = by.to(torch.int8)
        scales[rows] = scale.squeeze(1)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(choose, range(0, outputs, at_once)))
    return pack_int4(numbers, multipliers), scales


def _best_steps(groups: Tensor) -> Tensor:
    """groups [32, n], one in each column -> the steps between neighbouring weights, [n].

    A step is negative where the largest weight is positive, since -8 is there and 8 is not.
    """
    high, low = groups.amax(0), groups.amin(0)
    largest = torch.where(high > -low, high, low)
    best, steps = torch.zeros_like(largest), torch.zeros_like(largest)
    for fraction in _FRACTIONS:
        inverse = torch.where(largest == 0, 0.0, -8 / (fraction * largest))
        numbers = (groups * inverse).round_().clamp_(-8, 7)
        alike = (groups * numbers).sum(0)
        squares = numbers.square_().sum(0).clamp_min_(1)
        gain = alike.square() / squares
        is_better = gain > best
        best = torch.where(is_better, gain, best)
        steps = torch.where(is_better, alike / squares, steps)
    return steps


def pack_int4(numbers: Tensor, multipliers: Tensor) -> Tensor:
    """A weight of four bits as `int4_linear` reads it.

    numbers [outputs, inputs]: int8, -8 .. 7; multipliers [outputs, groups]: int8, of each 32
    inputs. Gives uint8 [blocks, groups, 1088]: of 64 output channels and 32 inputs, the numbers
    plus 8, then the multipliers. Of each 16 channels come four inputs, then the next four in the
    high halves of the same bytes. What fills the last block and group is zero.
    """
    outputs, inputs = numbers.shape
    missing = (0, -inputs % GROUP, 0, -outputs % _CHANNELS)
    codes = F.pad(numbers, missing).add_(8).view(torch.uint8)
    # blocks, four times 16 channels, groups, four pairs of steps, low and high, four inputs
    parts = codes.view(-1, 4, 16, codes.shape[1] // GROUP, 4, 2, 4)
    low, high = parts[..., 0, :], parts[..., 1, :]
    halves = (low | high << 4).permute(0, 3, 1, 4, 2, 5).flatten(2)
    padded = F.pad(multipliers, (0, 0, 0, missing[3])).view(torch.uint8)
    by = padded.view(-1, _CHANNELS, padded.shape[1]).transpose(1, 2)
    return torch.cat((halves, by), dim=2)


def unpack_int4(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    """packed: from `pack_int4` -> numbers times multipliers, [outputs, inputs] (int16)."""
    blocks, groups, _ = packed.shape
    halves = packed[..., :_NUMBER_BYTES].view(blocks, groups, 4, 4, 16, 4)
    codes = torch.stack((halves & 15, halves >> 4), dim=4)  # low and high before channels
    numbers = codes.permute(0, 2, 5, 1, 3, 4, 6).reshape(blocks * _CHANNELS, groups, GROUP)
    by = packed[..., _NUMBER_BYTES:].view(torch.int8).transpose(1, 2)
    whole = (numbers.to(torch.int16) - 8) * by.reshape(-1, groups, 1)
    return whole.flatten(1)[:outputs, :inputs]


def int4_linear(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [T, inputs], a packed weight of four bits, bias [outputs] -> [T, outputs].

    Rows of x are rounded to -127 .. 127, each with a scale of its own. packed: from `pack_int4`;
    scales [outputs] (float): of the channels.
    """
    wide = x.float()
    scale = (wide.abs().amax(-1, keepdim=True) * (1 / 127)).clamp_min(1e-7)
    weight = unpack_int4(packed, len(scales), x.shape[1])
    products = (wide / scale).round().double() @ weight.double().t()
    out = products.float() * scale * scales
    return (out if bias is None else out + bias.float()).to(x.dtype)


class Int4Linear(nn.Module):
    """A linear layer by a weight of four bits, in plain torch: what it means, not how it is served.

    Mutated by its own `quantize()` only, which is called once, when its weight has been read.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """linear: what it replaces, whose weight may be on the meta device."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight: Any = linear.weight
        self.bias = linear.bias
        # Not buffers: they are not to be converted.
        self.packed, self.scales = torch.empty(0, dtype=torch.uint8), torch.empty(0)

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> None:
        """Takes the weight [outputs, inputs], which is not kept."""
        self.packed, self.scales = quantize_int4(weight)
        self.weight = None

    def dequantized(self, dtype: torch.dtype) -> nn.Linear:
        """A plain layer with the same weights, up to their rounding to `dtype`."""
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        whole = unpack_int4(self.packed, self.out_features, self.in_features)
        weight = (whole * self.scales.unsqueeze(1)).to(dtype)
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), self.bias
        return plain

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden.reshape(-1, self.in_features)
        out = int4_linear(rows, self.packed, self.scales, self.bias)
        return out.view(*hidden.shape[:-1], self.out_features)
