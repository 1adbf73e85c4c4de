"""Weights of four bits, and how they are chosen: `--quantize int4`.

32 inputs of an output channel are a group. A weight is a whole number from -8 to 7, times a
multiplier of eight bits that its group shares, times a scale that its channel has (see grouped.py).
That takes 4.25 bits a weight.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from millstream.model.grouped import FORMATS, GroupedLinear, pack

FORM = FORMATS[0]
GROUP = FORM.group  # inputs
BITS = 4 + 8 / GROUP  # of a weight, its share of the multiplier included
_FRACTIONS = (1.0, 0.9, 0.8)  # of the step at which a group's largest weight is -8
_AT_ONCE = 2**15
"""Weights that a thread quantises at a time: so few that torch does not share an operation among
its own threads, which would wait for each other tens of thousands of times."""


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [outputs, inputs] in four bits: packed, and scales [outputs].

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
    return pack(numbers, multipliers, form=FORM), scales


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


class Int4Linear(GroupedLinear):
    """A linear layer whose weight becomes four bits."""

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> None:
        """Takes the weight [outputs, inputs], which is not kept."""
        self._keep(quantize_int4(weight))
