"""Which graphs are captured for a model."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.model.cuda.graphs import buckets
from millstream.model.cuda.prompt_sizes import StepSize, step_sizes


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
