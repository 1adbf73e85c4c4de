"""Weights of four or eight bits in groups: how they lie, and what a product with them is.

Some inputs of an output channel are a group. A weight is a whole number of four or eight bits,
times a whole number that its group shares, its multiplier, plus another one, its offset, all times
a scale that its channel has. So a product with a row of whole numbers is exact but for the last
scale, whoever computes it and in whatever order.

`grouped_linear` is the meaning of the compiled kernel of that name, in plain torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SECTION = 32  # inputs whose numbers lie together
_CHANNELS = 64  # output channels of a block
_MOST_MULTIPLIER = {4: 4095, 8: 255}  # where it has two bytes
_MOST = 2**15 - 1  # of a number times its multiplier, with its offset

Bits = Literal[4, 8]


@dataclass(frozen=True, slots=True)
class Format:
    """How a step lies: one group of 64 output channels.

    Numbers of each 32 inputs come first, then multipliers, then offsets. group: in inputs. is_wide:
    multipliers have two bytes, not one. Offsets always have two.
    """

    bits: Bits
    group: int
    is_wide: bool
    has_offsets: bool

    @property
    def section_bytes(self) -> int:
        """Bytes of 64 channels' numbers for 32 inputs."""
        return _CHANNELS * SECTION * self.bits // 8

    @property
    def number_bytes(self) -> int:
        """Bytes of a step's numbers."""
        return self.section_bytes * self.group // SECTION

    @property
    def step_bytes(self) -> int:
        """Bytes of a step."""
        return self.number_bytes + _CHANNELS * (1 + self.is_wide + 2 * self.has_offsets)

    @classmethod
    def of(cls, packed: Tensor) -> Self:
        """The format of a packed weight. Raises ValueError if it is none."""
        bits = 8 if packed.dtype == torch.int8 else 4
        for known in FORMATS:
            if known.bits == bits and known.step_bytes == packed.shape[-1]:
                return cls(known.bits, known.group, known.is_wide, known.has_offsets)
        raise ValueError("not a packed weight in groups")


FORMATS = (
    Format(4, 32, is_wide=False, has_offsets=False),
    Format(4, 32, is_wide=True, has_offsets=False),
    Format(4, 32, is_wide=True, has_offsets=True),
    Format(4, 128, is_wide=True, has_offsets=True),
    Format(8, 32, is_wide=True, has_offsets=False),
)


def pack(
    numbers: Tensor, multipliers: Tensor, offsets: Tensor | None = None, *, form: Format
) -> Tensor:
    """A weight as `grouped_linear` reads it.

    numbers [outputs, inputs]: int8, of four bits from -8 to 7; multipliers, offsets [outputs,
    groups]: whole numbers. Gives [blocks, groups, step_bytes], uint8 for four bits and int8 for
    eight. Of each 16 channels and 32 inputs come four inputs, then the next four: of four bits in
    the high halves of the same bytes, plus 8. What fills the last block and group is zero.
    """
    outputs, inputs = numbers.shape
    missing = (0, -inputs % form.group, 0, -outputs % _CHANNELS)
    codes = F.pad(numbers, missing)
    groups = codes.shape[1] // form.group
    # blocks, four times 16 channels, groups, sections, lines, inputs of a line
    per_line = 32 // form.bits
    parts = codes.view(-1, 4, 16, groups, form.group // SECTION, SECTION // per_line, per_line)
    if form.bits == 4:
        parts = parts.add(8).view(torch.uint8)
        parts = parts[..., :4] | parts[..., 4:] << 4
    lines = parts.permute(0, 3, 4, 1, 5, 2, 6).reshape(-1, groups, form.number_bytes)
    shared = [_by_channel(multipliers, torch.int16 if form.is_wide else torch.int8)]
    if form.has_offsets:
        made = torch.zeros_like(multipliers) if offsets is None else offsets
        shared.append(_by_channel(made, torch.int16))
    dtype = torch.uint8 if form.bits == 4 else torch.int8
    return torch.cat([lines.view(dtype), *(part.view(dtype) for part in shared)], dim=2)


def _by_channel(shared: Tensor, dtype: torch.dtype) -> Tensor:
    padded = F.pad(shared.to(dtype), (0, 0, 0, -len(shared) % _CHANNELS))
    return padded.view(-1, _CHANNELS, padded.shape[1]).transpose(1, 2).contiguous()


def unpack(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    """packed: from `pack` -> numbers times multipliers plus offsets, [outputs, inputs] (int16).

    Numbers [outputs, inputs] that have no groups stay as they are.
    """
    if packed.dim() == 2:
        return packed.to(torch.int16)
    form = Format.of(packed)
    blocks, groups, _ = packed.shape
    lines = packed[..., : form.number_bytes].reshape(
        blocks, groups, form.group // SECTION, 4, -1, 16, 4
    )
    if form.bits == 4:
        lines = torch.stack((lines & 15, lines >> 4), dim=5).view(torch.int8).sub_(8)
        numbers = lines.permute(0, 3, 6, 1, 2, 4, 5, 7)
    else:
        numbers = lines.permute(0, 3, 5, 1, 2, 4, 6)
    whole = numbers.reshape(blocks * _CHANNELS, groups, form.group).to(torch.int16)
    shared = packed[..., form.number_bytes :].contiguous()
    shared = shared.view(torch.int16 if form.is_wide else torch.int8)
    shared = shared.view(blocks, groups, -1, _CHANNELS).permute(2, 0, 3, 1).to(torch.int16)
    by, *offsets = shared.reshape(len(shared), -1, groups, 1)
    whole = whole * by
    for added in offsets:
        whole += added
    found: Tensor = whole.flatten(1)[:outputs, :inputs]
    return found


def grouped_linear(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [T, inputs], a packed weight in groups, bias [outputs] -> [T, outputs].

    Rows of x are rounded to -127 .. 127, each with a scale of its own. packed: from `pack`; scales
    [outputs] (float): of the channels.
    """
    wide = x.float()
    scale = (wide.abs().amax(-1, keepdim=True) * (1 / 127)).clamp_min(1e-7)
    weight = unpack(packed, len(scales), x.shape[1])
    products = (wide / scale).round().double() @ weight.double().t()
    out = products.float() * scale * scales
    return (out if bias is None else out + bias.float()).to(x.dtype)


@torch.no_grad()
def pack_groups(
    numbers: Tensor, steps: Tensor, offsets: Tensor | None = None, *, bits: Bits
) -> tuple[Tensor, Tensor]:
    """A weight of steps * numbers + offsets, packed, and its scales [outputs].

    numbers [outputs, inputs]: int8, of four bits from -8 to 7; steps, offsets [outputs, groups]:
    float, of groups of 32 inputs or a multiple. Four bits keep their numbers, and steps are
    rounded to the 4,095th part of a channel's largest, or of what its largest weight allows. Eight
    bits are rounded anew for steps of the 255th part. Raises ValueError for shapes that do not fit.
    """
    outputs, inputs = numbers.shape
    size = inputs // max(steps.shape[1], 1)
    if size * steps.shape[1] != inputs or size % SECTION or (bits == 8 and offsets is not None):
        raise ValueError(f"{bits} bits: {steps.shape[1]} groups of {inputs} inputs are not known")
    form = FORMATS[4 if bits == 8 else 3 if size % 128 == 0 else 1 + (offsets is not None)]
    repeats = size // form.group
    steps = steps.float().repeat_interleave(repeats, dim=1)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    ends = torch.stack((steps * low, steps * high))
    scale = steps.abs().amax(1) / _MOST_MULTIPLIER[bits]
    if offsets is not None:
        offsets = offsets.float().repeat_interleave(repeats, dim=1)
        ends = torch.cat((ends + offsets, offsets.unsqueeze(0)))
    # One is left for each of two numbers that are rounded, times what a number may be.
    room = _MOST - 1 + low
    scale = torch.maximum(scale, ends.abs().amax((0, 2)) / room).clamp_min(1e-30).unsqueeze(1)
    by = (steps / scale).round()
    if bits == 8:
        groups = numbers.view(outputs, -1, SECTION)
        is_cut = by.abs() * scale * (high + 0.5) < steps.abs() * groups.int().abs().amax(2)
        by += torch.where(is_cut, steps.sign(), 0.0)
        ratios = torch.where(by == 0, 0.0, steps / (by * scale)).unsqueeze(2)
        numbers = (groups * ratios).round_().clamp_(low, high).to(torch.int8).view_as(numbers)
    added = None if offsets is None else (offsets / scale).round()
    return pack(numbers, by, added, form=form), scale.squeeze(1)


@torch.no_grad()
def quantize_int8_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [outputs, inputs] as numbers of eight bits and steps, of groups of 32 inputs.

    Raises ValueError if groups are not whole.
    """
    if weight.shape[1] % SECTION:
        raise ValueError(f"{weight.shape[1]} inputs are no whole groups of {SECTION}")
    groups = weight.float().view(len(weight), -1, SECTION)
    steps = groups.abs().amax(2) / 127
    numbers = (groups / steps.clamp_min(1e-30).unsqueeze(2)).round_().to(torch.int8)
    return numbers.view_as(weight), steps


class GroupedLinear(nn.Module):
    """A linear layer by a weight in groups, in plain torch: what it means, not how it is served."""

    def __init__(self, linear: nn.Linear) -> None:
        """linear: what it replaces, whose weight may be on the meta device."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight: Any = linear.weight
        self.bias = linear.bias
        # Not buffers: they are not to be converted.
        self.packed, self.scales = torch.empty(0, dtype=torch.uint8), torch.empty(0)

    def take(
        self, numbers: Tensor, steps: Tensor, offsets: Tensor | None = None, *, bits: Bits
    ) -> None:
        """Takes a weight that has been quantised: see `pack_groups()`.

        Eight bits with steps [outputs, 1] have no groups, and are kept as they are.
        """
        if bits == 8 and steps.shape[1] == 1 and offsets is None:
            self._keep((numbers, steps.flatten().float()))
        else:
            self._keep(pack_groups(numbers, steps, offsets, bits=bits))

    def _keep(self, weight: tuple[Tensor, Tensor]) -> None:
        self.packed, self.scales = weight
        self.weight = None

    @property
    def has_groups(self) -> bool:
        """Whether its weight is packed in groups; else it is int8, with a scale per channel."""
        return self.packed.dim() == 3

    def dequantized(self, dtype: torch.dtype) -> nn.Linear:
        """A plain layer with the same weights, up to their rounding to `dtype`."""
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        whole = unpack(self.packed, self.out_features, self.in_features)
        weight = (whole * self.scales.unsqueeze(1)).to(dtype)
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), self.bias
        return plain

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden.reshape(-1, self.in_features)
        out = grouped_linear(rows, self.packed, self.scales, self.bias)
        return out.view(*hidden.shape[:-1], self.out_features)
