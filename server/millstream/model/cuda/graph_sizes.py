"""Which graphs are captured for a model, and a few of them by which all are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from millstream.model.cuda.graphs import buckets
from millstream.model.cuda.prompt_sizes import StepSize, step_sizes

_SAMPLE = 4  # of each kind

Size = TypeVar("Size")


@dataclass(frozen=True, slots=True)
class GraphSizes:
    """decodes: numbers of rows of decode steps, ascending; draws: whether two graphs that draw go
    with each of them; prompts: the sizes of steps with prompts. Where there are no graphs of decode
    steps there are none at all."""

    decodes: tuple[int, ...] = ()
    draws: bool = True
    prompts: tuple[StepSize, ...] = ()

    @classmethod
    def of(cls, *, max_rows: int, max_prompt_tokens: int, draws: bool) -> GraphSizes:
        """The sizes for steps of so many rows, and with so many prompt tokens or none."""
        prompts = step_sizes(max_rows=max_rows, max_tokens=max_prompt_tokens)
        return cls(tuple(buckets(max_rows)), draws, tuple(prompts))

    def sample(self) -> GraphSizes:
        """The largest sizes, with which all share their memory, and a few of the others."""
        prompts = sorted(self.prompts, key=lambda size: size.num_rows)
        return replace(self, decodes=spread(self.decodes), prompts=spread(prompts))


def spread(sizes: Sequence[Size]) -> tuple[Size, ...]:
    """Up to four of ascending sizes: the last, the first, and others at equal distances between."""
    last = len(sizes) - 1
    if last < _SAMPLE:
        return tuple(sizes)
    return tuple(sizes[last * i // (_SAMPLE - 1)] for i in range(_SAMPLE))
