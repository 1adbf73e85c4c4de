"""The model side of the engine, as the loop needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from millstream.core.plan import Plan, StepOutput
from millstream.core.status import EngineInfo


class Runner(Protocol):
    """Computes whole steps."""

    @property
    def info(self) -> EngineInfo: ...

    def step(self, plan: Plan) -> StepOutput:
        """Computes the plan. Raises whatever made the whole step fail."""
        ...

    def scrub(self, blocks: Sequence[int]) -> None:
        """Clears free cache blocks that may hold NaN."""
        ...


@runtime_checkable
class LaunchingRunner(Runner, Protocol):
    """A runner whose device computes a step while the loop does something else. Each of the three
    parts of a step raises as `step()` does."""

    @property
    def plans_ahead(self) -> bool:
        """Whether a step may be launched when the one before is drawn, but not finished."""
        ...

    def launch(self, plan: Plan, after: Any = None) -> Any:
        """Begins a step. after: the one that is not finished, as `draw()` gave it."""
        ...

    def draw(self, launched: Any, *, is_wanted: Callable[[int], bool]) -> Any:
        """Begins to draw its tokens; the step before has been committed. is_wanted: whether the
        token of the request of this id is needed; otherwise any will do."""
        ...

    def finish(self, drawn: Any) -> StepOutput:
        """Ends it."""
        ...


class Immediate:
    """A runner that computes whole steps, as one that launches them."""

    plans_ahead = False

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def launch(self, plan: Plan, after: Any = None) -> Plan:
        return plan

    def draw(self, launched: Plan, *, is_wanted: Callable[[int], bool]) -> Plan:
        return launched

    def finish(self, drawn: Plan) -> StepOutput:
        return self._runner.step(drawn)
