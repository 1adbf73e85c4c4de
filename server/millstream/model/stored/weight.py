"""One weight as whole numbers, whatever format it was stored in.

Each format of this room says how its tensors are packed and gives this. What multiplies the numbers
as they are takes its parts; anything else takes `dequantized()`, which is the meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 2**22  # that are float32 while they are dequantised


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight [outputs, inputs]: step * number + offset, with a step and an offset per group.

    numbers [outputs, inputs]: int8, within `bits`; steps, offsets [outputs, groups]: float32, no
    offsets where all are 0. Groups are equally many inputs, one group after the other, unless
    `group_of` [inputs] (int64) says for each input which group it is of.
    """

    numbers: Tensor
    steps: Tensor
    offsets: Tensor | None
    bits: Literal[4, 8]
    group_of: Tensor | None = None

    @property
    def group_size(self) -> int:
        """Inputs of a group."""
        return self.numbers.shape[1] // self.steps.shape[1]

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight [outputs, inputs] in `dtype`; computed in float32, some rows at a time."""
        outputs, inputs = self.numbers.shape
        whole = torch.empty(outputs, inputs, dtype=dtype)
        at_once = max(1, _NUMBERS_AT_ONCE // max(inputs, 1))
        for start in range(0, outputs, at_once):
            rows = slice(start, start + at_once)
            part = self.numbers[rows].float() * self._per_input(self.steps[rows])
            if self.offsets is not None:
                part += self._per_input(self.offsets[rows])
            whole[rows] = part
        return whole

    def _per_input(self, of_groups: Tensor) -> Tensor:
        """[rows, groups] -> [rows, inputs]."""
        if self.group_of is not None:
            return of_groups[:, self.group_of]
        return of_groups.repeat_interleave(self.group_size, dim=1)


def unpacked(words: Tensor, bits: int) -> Tensor:
    """words [..., n] (int32), each of several numbers, the lowest bits first -> uint8 [..., m].

    bits: 4 or 8, of a number; m: n times as many as a word holds.
    """
    codes = words.contiguous().view(torch.uint8)  # the lowest byte of a word comes first
    if bits == 8:
        return codes
    return torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2)


def signed(codes: Tensor, bits: int) -> Tensor:
    """Numbers of `bits` (uint8) that count from 0 -> the same around 0 (int8)."""
    if bits == 8:
        return codes.bitwise_xor(128).view(torch.int8)
    return codes.view(torch.int8) - (1 << (bits - 1))
