"""How many values fell below which bounds, as Prometheus wants them.

`prometheus_client` has a histogram of its own. It takes a lock and walks through the bounds for
each value, which for the time between two tokens would be the dearest thing done per token.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

TOKEN_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
)
"""Bounds for the time between two tokens."""

REQUEST_SECONDS = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0),
    *(40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0),
)
"""Bounds for the parts of a request's time."""

TOKEN_COUNTS = tuple(
    float(digit * 10**power) for power in range(6) for digit in (1, 2, 5) if (digit, power) < (6, 5)
)
"""Bounds for the lengths of prompts and answers: 1, 2, 5, 10, ... 500,000."""


class Histogram:
    """Counts of values. For one thread. bounds: upper ones, ascending, each included.

    total: the sum of the values. remainder: what rounding left out of it when histograms were
    added; empty where values were only observed.
    """

    __slots__ = ("bounds", "counts", "remainder", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.remainder: list[float] = []

    def observe(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Counts all that another one has counted. Raises ValueError if its bounds differ.

        The totals are summed without an error, so the order of summands does not change the result
        by a bit, and more in a summand never makes it less.
        """
        if other.bounds != self.bounds:
            raise ValueError("histograms with different bounds cannot be added")
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total, *self.remainder = _exact_sum(
            [self.total, *self.remainder, other.total, *other.remainder]
        )

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, the last of which is infinite, and how many values are not above it."""
        return zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True)


def _exact_sum(values: Sequence[float]) -> list[float]:
    """The sum of values, rounded to a float, then floats that are what the rounding left out."""
    parts = [math.fsum(values)]
    while rest := math.fsum([*values, *(-part for part in parts)]):
        parts.append(rest)
    return parts
