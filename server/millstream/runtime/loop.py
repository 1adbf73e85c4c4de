"""The engine loop: take the inbox, plan, run the step, commit, send one message.

Rules:
1. One message per step, however many requests it serves. Idle means blocked in `receive()`.
2. A step that raises fails the requests of that step and nobody else.
3. A request whose logits are not finite fails alone.
4. A cancel that arrived before a plan is honoured by that plan.
5. While a device computes a step, what arrives is taken in. A request of that step is cancelled
   after it: until then nobody knows whether what it writes to its blocks is finite.
6. A request that did not get to run within `max_queue_seconds` fails before the next plan.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from millstream.core.info import EngineInfo
from millstream.core.plan import IMPOSSIBLE_TOKEN, INVALID_TOKEN, Plan, StepOutput
from millstream.core.request import FailureEvent
from millstream.core.scheduler import Scheduler
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, Stop, ToEngine

T = TypeVar("T")

log = logging.getLogger(__name__)


class Runner(Protocol):
    """The model side of the engine, as the loop needs it."""

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
    """A runner whose device computes a step while the loop does something else."""

    def launch(self, plan: Plan) -> Any:
        """Begins a step. Raises as `step()` does."""
        ...

    def finish(self, launched: Any) -> StepOutput:
        """Ends it, before the next one is launched. Raises as `step()` does."""
        ...


class Channel(Protocol):
    """Messages to and from whoever drives the engine."""

    def receive(self) -> ToEngine:
        """Waits for the next message."""
        ...

    def receive_nowait(self) -> ToEngine | None:
        """The next message if one is there."""
        ...

    def send(self, message: FromEngine) -> None: ...


class EngineLoop:
    """Drives one scheduler and one runner until it receives Stop."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        runner: Runner,
        channel: Channel,
        max_queue_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._launching = runner if isinstance(runner, LaunchingRunner) else None
        self._channel = channel
        self._max_queue_seconds = max_queue_seconds
        self._clock = clock
        self._deadlines: deque[tuple[float, int]] = deque()  # in order of arrival, so of time
        self._late_cancels: list[int] = []
        self._is_stopped = False

    def run(self) -> None:
        """Returns when Stop was received."""
        while self._take_inbox():
            self._expire_queued()
            plan = self._scheduler.plan()
            if plan is not None:
                self._advance(plan)
            while self._late_cancels:
                self._scheduler.cancel(self._late_cancels.pop())

    def _take_inbox(self) -> bool:
        """Applies all messages that are there; waits for one when there is no work."""
        if self._is_stopped:
            return False
        message = self._channel.receive_nowait()
        while True:
            if message is None:
                if self._scheduler.has_work:
                    return True
                self._channel.send(Step([], [], self._scheduler.statistics()))
                message = self._channel.receive()
            if isinstance(message, Stop):
                return False
            self._apply(message)
            message = self._channel.receive_nowait()

    def _take_inbox_during(self, plan: Plan) -> None:
        """Applies what is there while the plan is computed, up to a Stop."""
        computed = {chunk.request_id for chunk in plan.chunks}
        while not self._is_stopped and (message := self._channel.receive_nowait()) is not None:
            if isinstance(message, Stop):
                self._is_stopped = True
            elif isinstance(message, Cancel) and message.request_id in computed:
                self._late_cancels.append(message.request_id)
            else:
                self._apply(message)

    def _apply(self, message: Add | Cancel) -> None:
        if isinstance(message, Cancel):
            self._scheduler.cancel(message.request_id)
        elif self._scheduler.fits(message.request):
            self._scheduler.add(message.request)
            if self._max_queue_seconds is not None:
                deadline = self._clock() + self._max_queue_seconds
                self._deadlines.append((deadline, message.request.id))
        else:
            failure = FailureEvent(
                message.request.id, "context_length_exceeded", "request exceeds the KV cache"
            )
            self._channel.send(Step([], [failure], self._scheduler.statistics()))

    def _expire_queued(self) -> None:
        late: list[int] = []
        while self._deadlines and self._deadlines[0][0] <= self._clock():
            late.append(self._deadlines.popleft()[1])
        if not late:
            return
        message = f"Model is overloaded: no place became free within {self._max_queue_seconds:g} s"
        failures = self._scheduler.fail_queued(late, code="overloaded", message=message)
        if failures:
            self._channel.send(Step([], failures, self._scheduler.statistics()))

    def _advance(self, plan: Plan) -> None:
        finish = self._attempt(plan, lambda: self._launch(plan))
        if finish is None:
            return
        if self._launching is not None:
            self._take_inbox_during(plan)
        output = self._attempt(plan, finish)
        if output is None:
            return
        failures: list[FailureEvent] = []
        if min(output.tokens, default=0) < 0:
            failures = self._fail_without_token(plan, output)
        events = self._scheduler.commit(plan, output)
        self._channel.send(Step(events, failures, self._scheduler.statistics()))

    def _launch(self, plan: Plan) -> Callable[[], StepOutput]:
        """What gives the output of the plan."""
        if self._launching is not None:
            return partial(self._launching.finish, self._launching.launch(plan))
        return partial(self._runner.step, plan)

    def _attempt(self, plan: Plan, compute: Callable[[], T]) -> T | None:
        """What `compute` returns; None if it raises: the requests of the plan have failed then."""
        try:
            return compute()
        except Exception as error:  # last resort: a failing step must not end the engine
            log.exception("a step of %d tokens failed", plan.num_tokens)
            failures = self._scheduler.fail(
                [chunk.request_id for chunk in plan.chunks],
                code="step_failed",
                message=f"generation failed: {type(error).__name__}",
            )
            self._channel.send(Step([], failures, self._scheduler.statistics()))
            return None

    def _fail_without_token(self, plan: Plan, output: StepOutput) -> list[FailureEvent]:
        """Ends the requests that got no token, for each of the two reasons."""
        sampling = [chunk.request_id for chunk in plan.chunks if chunk.is_last]
        pairs = list(zip(sampling, output.tokens, strict=True))
        failures, blocks = self._scheduler.fail_suspect(
            [request_id for request_id, token in pairs if token == INVALID_TOKEN],
            code="nan_logits",
            message="the model produced logits that are not finite",
        )
        self._runner.scrub(blocks)
        return failures + self._scheduler.fail(
            [request_id for request_id, token in pairs if token == IMPOSSIBLE_TOKEN],
            code="no_token_allowed",
            message="the request's constraints forbid every token",
        )
