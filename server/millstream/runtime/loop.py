"""The engine loop: take the inbox, plan, run the step, commit, send one message.

Rules:
1. One message per step, however many requests it serves. Idle means blocked in `receive()`.
2. A step that raises fails the requests of that step and nobody else.
3. A request whose logits are not finite fails alone.
4. A cancel that arrived before a plan is honoured by that plan.
5. A request that did not get to run within `max_queue_seconds` fails before the next plan.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from millstream.core.info import EngineInfo
from millstream.core.plan import IMPOSSIBLE_TOKEN, INVALID_TOKEN, Plan, StepOutput
from millstream.core.request import FailureEvent
from millstream.core.scheduler import Scheduler
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, Stop, ToEngine

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
        self._channel = channel
        self._max_queue_seconds = max_queue_seconds
        self._clock = clock
        self._deadlines: deque[tuple[float, int]] = deque()  # in order of arrival, so of time

    def run(self) -> None:
        """Returns when Stop was received."""
        while self._take_inbox():
            self._expire_queued()
            plan = self._scheduler.plan()
            if plan is not None:
                self._advance(plan)

    def _take_inbox(self) -> bool:
        """Applies all messages that are there; waits for one when there is no work."""
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
        failures: list[FailureEvent] = []
        try:
            output = self._runner.step(plan)
        except Exception as error:  # last resort: a failing step must not end the engine
            log.exception("a step of %d tokens failed", plan.num_tokens)
            failures = self._scheduler.fail(
                [chunk.request_id for chunk in plan.chunks],
                code="step_failed",
                message=f"generation failed: {type(error).__name__}",
            )
            self._channel.send(Step([], failures, self._scheduler.statistics()))
            return
        if min(output.tokens, default=0) < 0:
            failures = self._fail_without_token(plan, output)
        events = self._scheduler.commit(plan, output)
        self._channel.send(Step(events, failures, self._scheduler.statistics()))

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
