"""The numbers that rows are drawn by, as tensors on their device.

They travel as one array of 64 bit words, whatever their types are: as one copy, and into memory
that a captured computation reads. A number that changes nothing stands for an option that a row
does not use, so rows with different options are drawn together.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.request import SamplingParams
from millstream.model.transfers import upload

EXTREME = 1e30
"""Numbers of requests beyond this, or its inverse, are taken for it: nothing changes any more, and
float32 ends soon after."""

NUM_WORDS = 6
"""How many words a row has."""

ALL = 2**31
"""The size of a row that keeps any number of tokens."""


def uniform(seed: int, counter: int) -> float:
    """Number `counter` of the stream `seed`: uniform in [0, 1), 53 bits."""
    digest = blake2b(struct.pack("<QQ", seed, counter), digest_size=8).digest()
    number: int = struct.unpack("<Q", digest)[0]
    return (number >> 11) * 2.0**-53


class Numbers(NamedTuple):
    """How n rows are drawn.

    points: [n] float64, uniform in [0, 1). temperatures: [n, 1] float32; 0 for greedy rows.
    sizes: [n, 1] int64, top_k or ALL. limits: [n, 1] float64, top_p or inf. ratios: [n, 1] float32,
    the logarithm of min_p. typical: [n, 1] float64, typical_p. has_top_p, has_typical: whether any
    row may use that filter.
    """

    points: Tensor
    temperatures: Tensor
    sizes: Tensor
    limits: Tensor
    ratios: Tensor
    typical: Tensor
    has_top_p: bool
    has_typical: bool

    @classmethod
    def of_rows(
        cls, params: Sequence[SamplingParams], points: Sequence[float], device: torch.device
    ) -> Numbers:
        """The numbers of rows with these params, points [n] for their draws, on `device`."""
        words = upload(torch.from_numpy(words_of(params, points)), device)
        return cls.of_words(
            words,
            has_top_p=any(p.top_p < 1 for p in params),
            has_typical=any(p.typical_p < 1 for p in params),
        )

    @classmethod
    def of_words(cls, words: Tensor, *, has_top_p: bool, has_typical: bool) -> Numbers:
        """The numbers in words [NUM_WORDS, n] int64, which `words_of()` made."""
        points, temperatures, limits, ratios, typical = words[:5].view(torch.float64).unsqueeze(-1)
        return cls(
            points=points.squeeze(-1),
            temperatures=temperatures.float(),
            sizes=words[5].unsqueeze(-1),
            limits=limits,
            ratios=ratios.float(),
            typical=typical,
            has_top_p=has_top_p,
            has_typical=has_typical,
        )

    @property
    def is_filtered(self) -> Tensor:
        """Rows from which top-k, top-p or min-p may drop a token, [n] bool."""
        drops = (self.sizes != ALL) | (self.limits < math.inf) | (self.ratios > -math.inf)
        return drops.squeeze(1)

    @property
    def measure_everyone(self) -> Tensor:
        """Rows whose first filter measures shares of all tokens, [n, 1] bool: those for which
        `filters.needs_population()` holds."""
        by_typical = (self.ratios == -math.inf) & (self.typical < 1)
        return (self.sizes == ALL) & ((self.limits < math.inf) | by_typical)

    def part(self, rows: range) -> Numbers:
        """The numbers of some rows that follow one another."""
        part = slice(rows.start, rows.stop)
        return self._replace(
            points=self.points[part],
            temperatures=self.temperatures[part],
            sizes=self.sizes[part],
            limits=self.limits[part],
            ratios=self.ratios[part],
            typical=self.typical[part],
        )


def words_of(params: Sequence[SamplingParams], points: Sequence[float]) -> NDArray[np.int64]:
    """The numbers of n rows as words [NUM_WORDS, n]. points: their random numbers."""
    words = np.empty((NUM_WORDS, len(params)), np.int64)
    words[:5].view(np.float64)[:] = (
        points,
        [0 if p.is_greedy else clamped(p.temperature, 1 / EXTREME, EXTREME) for p in params],
        [p.top_p if p.top_p < 1 else math.inf for p in params],
        [math.log(p.min_p) if p.min_p > 0 else -math.inf for p in params],
        [p.typical_p for p in params],
    )
    words[5] = [p.top_k or ALL for p in params]
    return words


def clamped(number: float, smallest: float, largest: float) -> float:
    """The number in [smallest, largest] that is nearest to `number`."""
    return min(max(number, smallest), largest)
