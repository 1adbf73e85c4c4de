"""One step as layers with states see it: which rows belong together, and where their states are.

Rows of sequences that go on by one token come first and are computed as one batch. The rows of
prompts follow in stretches, each computed with the state of its sequence, one after the other:
a stretch may begin with the state that the one before it has left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import Chunk
from millstream.model.states.state_cache import StateCache

NO_STATE = -1
"""The source of a sequence that begins: there is no state before it."""


class Stretch(NamedTuple):
    """Rows first .. first + length - 1 of the batch, of one sequence. source, target: the slots
    that are read, or NO_STATE, and written."""

    first: int
    length: int
    source: int
    target: int


class HostStates(NamedTuple):
    """The states of a step on the host.

    num_decodes: leading rows that are a sequence each and have a state; stretches: all others.
    slots [2, n] int64: sources and targets of the n rows and stretches, in order. firsts [n + 1]
    int32: the first row of each of them, and the number of rows.
    """

    num_decodes: int
    stretches: tuple[Stretch, ...]
    slots: NDArray[np.int64]
    firsts: NDArray[np.int32]

    @classmethod
    def of_chunks(cls, chunks: Sequence[Chunk]) -> HostStates:
        """The rows are those of the chunks, chunk after chunk."""
        every: list[Stretch] = []
        first = 0
        for chunk in chunks:
            for move in chunk.states:
                source = NO_STATE if move.source is None else move.source
                every.append(Stretch(first, move.length, source, move.target))
                first += move.length
        others = (i for i, chunk in enumerate(chunks) if not _is_decode(chunk))
        num_decodes = next(others, len(chunks))
        slots = np.array([[s.source for s in every], [s.target for s in every]], dtype=np.int64)
        firsts = np.array([*(s.first for s in every), first], dtype=np.int32)
        return cls(num_decodes, tuple(every[num_decodes:]), slots, firsts)

    def put(self, put: Callable[[NDArray[Any]], Tensor], cache: StateCache) -> StateStep:
        """These states on the device, in the slots of `cache`."""
        return StateStep(cache, self.num_decodes, self.stretches, put(self.slots), put(self.firsts))


def _is_decode(chunk: Chunk) -> bool:
    """Whether the chunk is one token of a sequence that has a state."""
    return len(chunk.tokens) == 1 and chunk.states[0].source is not None


@dataclass(frozen=True, slots=True)
class StateStep:
    """The states of one step: cache, and what HostStates says, with slots [2, n] int64 and firsts
    [n + 1] int32 on the device."""

    cache: StateCache
    num_decodes: int
    stretches: tuple[Stretch, ...]
    slots: Tensor
    firsts: Tensor

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        if not self.stretches:
            return self.num_decodes
        return self.stretches[-1].first + self.stretches[-1].length
