"""The model side of the engine, as the loop needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from millstream.core.archive import BlockArchive
from millstream.core.plan import Plan, StepOutput
from millstream.core.request import Request
from millstream.core.status import EngineInfo


class Runner(Protocol):
    """What computes steps, each in three parts: the forward pass is launched, its tokens are drawn,
    and the step is finished when the host has them.

    A device with a queue of its own works on a part while the loop does something else. Each part
    raises whatever makes the whole step fail. What `launch()` and `draw()` return is the runner's
    own; the loop only hands it on.
    """

    @property
    def info(self) -> EngineInfo:
        """Facts of the loaded model and its cache."""
        ...

    @property
    def plans_ahead(self) -> bool:
        """Whether a step may be launched when the one before is drawn, but not finished."""
        ...

    @property
    def archive(self) -> BlockArchive | None:
        """What keeps blocks of its cache, if anything does."""
        ...

    @property
    def num_late_kernels(self) -> int | None:
        """Kernels of its device that were compiled since it was made; None if nobody knows."""
        ...

    def is_compiled(self, request: Request) -> bool:
        """Whether the request's steps need not compile anything first."""
        ...

    def compile(self, request: Request) -> None:
        """Compiles what the request needs, in a thread of the caller's, while steps go on."""
        ...

    def launch(self, plan: Plan, after: Any = None) -> Any:
        """Begins a step. after: the one that is not finished, as `draw()` gave it."""
        ...

    def draw(self, launched: Any, *, is_wanted: Callable[[int], bool]) -> Any:
        """Begins to draw a step's tokens; the step before has been committed.

        is_wanted: whether the token of the request of this id is needed; otherwise any will do.
        """
        ...

    def finish(self, drawn: Any) -> StepOutput:
        """Waits for a step's tokens."""
        ...

    def scrub(self, blocks: Sequence[int]) -> None:
        """Clears free cache blocks that may hold NaN."""
        ...
