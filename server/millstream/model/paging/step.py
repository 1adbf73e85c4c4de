"""One step as attention sees it: where its keys and values go, and what each row attends to.

The tokens of a step are the rows of one batch. Decode rows come first, one of each sequence that
generates; the rows of prompt chunks follow, chunk after chunk. Each of the two is a `Span`, because
that is how attention is computed: all decode rows in one call, all prompt chunks in another.

Rules:
1. The packer makes a step; nobody changes it. It is good until the packer makes the next one.
2. What a backend works out from a span for all layers (masks, groups of rows of similar length) it
   asks for by `Span.once()`, which computes it in the first layer and keeps it with the span.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
Put = Callable[[NDArray[Any]], Tensor]
"""Gives the tensor of an array, on the device that computes."""


class HostSpan(NamedTuple):
    """The arrays and numbers of a span, on the host; what each means is written at Span.

    tables [n, blocks] int32; starts [n] int64; ends [n] int32; firsts [n + 1] int32.
    """

    tables: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int32]
    firsts: NDArray[np.int32]
    longest: int
    longest_context: int

    @classmethod
    def of_chunks(
        cls, tables: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> HostSpan:
        """Chunks of `lengths` rows at the positions `starts`, both [n]."""
        ends = starts + lengths
        firsts = np.zeros(len(ends) + 1, np.int32)
        np.cumsum(lengths, out=firsts[1:])
        longest, longest_context = int(lengths.max()), int(ends.max())
        return cls(tables, starts, ends.astype(np.int32), firsts, longest, longest_context)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Rows of each sequence, [n]."""
        return np.diff(self.firsts)

    def put(self, put: Put) -> Span:
        """The span on the device."""
        return Span(
            tables=put(self.tables),
            starts=put(self.starts),
            ends=put(self.ends),
            firsts=put(self.firsts),
            longest=self.longest,
            longest_context=self.longest_context,
            host=self,
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that attend in one call: one of each of n sequences, or the rows of n prompt chunks.

    tables [n, blocks] int32: block tables, filled up with the padding block; starts [n] int64:
    position of each sequence's first row; ends [n] int32: the position after its last row, which
    is the number of keys that row sees; firsts [n + 1] int32: the number within the span of each
    sequence's first row, and the number of all rows; longest: rows of the longest sequence;
    longest_context: no smaller than any of `ends`; host: the arrays that this was made from, or
    None in a captured step, whose lengths are known on the device only. Such a step may have
    sequences for nobody: without rows, or at negative positions, where a row sees no keys.
    """

    tables: Tensor
    starts: Tensor
    ends: Tensor
    firsts: Tensor
    longest: int
    longest_context: int
    host: HostSpan | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def lengths(self) -> Tensor:
        """Rows of each sequence, [n] int32."""
        return self.once("lengths", self.firsts.diff)

    @property
    def on_host(self) -> HostSpan:
        """The arrays of a span whose lengths the host knows; RuntimeError for a captured one."""
        if self.host is None:
            raise RuntimeError("the lengths of a captured step are known on the device only")
        return self.host

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned when it was first asked for under `key`; see rule 2."""
        kept: T | None = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = make()
        return kept


@dataclass(frozen=True, slots=True)
class PagedStep:
    """slots [T] int64: where the key and value of each row are stored, counted in tokens of the
    cache; decodes, prompts: the spans of the rows, None where there are none. At least one is."""

    slots: Tensor
    decodes: Span | None
    prompts: Span | None

    @property
    def num_positions(self) -> int:
        """A number that the positions of all rows are below."""
        return max(span.longest_context for span in (self.decodes, self.prompts) if span)
