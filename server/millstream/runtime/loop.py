"""The engine loop: take the inbox, plan, launch the step, commit the one before, send one message.

Rules:
1. One message per step, however many requests it serves. Idle means blocked in `receive()`.
2. A step that raises fails the requests of that step and nobody else.
3. A request whose logits are not finite fails alone.
4. A cancel that arrived before a plan is honoured by that plan.
5. While a device computes a step, what arrives is taken in.
6. Where the runner can, the next step is planned and its forward pass launched before the tokens of
   this one are known; they are drawn when they are. Such a device need not pause between two steps.
7. A request that did not get to run within `max_queue_seconds` fails before the next plan.
8. The scheduler hears how long each step kept the device, so that it can plan by time.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from millstream.core.plan import IMPOSSIBLE_TOKEN, INVALID_TOKEN, Plan, StepOutput
from millstream.core.request import FailureCode, FailureEvent, TokenEvent
from millstream.core.scheduler import Scheduler
from millstream.errors import is_library_failure
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, Stop, ToEngine, Wait
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.step_failures import step_failure

log = logging.getLogger(__name__)

_ARCHIVE_SECONDS = 0.001  # between two looks at the inbox while only the archive works


class Channel(Protocol):
    """Messages to and from whoever drives the engine."""

    def receive(self) -> ToEngine:
        """Waits for the next message."""
        ...

    def receive_nowait(self) -> ToEngine | None:
        """The next message if one is there."""
        ...

    def send(self, message: FromEngine) -> None: ...


class OpenStep(NamedTuple):
    """A step that the runner works on. handle: what the runner gave for it last. launched: when."""

    plan: Plan
    handle: Any
    launched: float


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
        self._arrivals: dict[int, float] = {}  # of the requests that wait
        self._waits: list[Wait] = []  # not told yet
        self._device_free_since = 0.0
        self._is_stopped = False

    def run(self) -> None:
        """Returns when Stop was received."""
        step: OpenStep | None = None
        archive = self._runner.archive
        while self._take_inbox(may_wait=not self._scheduler.save_blocks() and step is None):
            self._expire_queued()
            if step is None:
                step = self._draw(self._launch())
            if step is not None:
                step = self._complete(step)
            elif archive is not None:
                archive.wait(_ARCHIVE_SECONDS)

    def _take_inbox(self, *, may_wait: bool) -> bool:
        """Applies all messages that are there; waits for one when there is no work."""
        if self._is_stopped:
            return False
        message = self._channel.receive_nowait()
        while True:
            if message is None:
                if self._scheduler.has_work or not may_wait:
                    return True
                self._tell()
                message = self._channel.receive()
            if isinstance(message, Stop):
                return False
            self._apply(message)
            message = self._channel.receive_nowait()

    def _take_inbox_meanwhile(self) -> None:
        """Applies what is there while a step is computed, up to a Stop."""
        while not self._is_stopped and (message := self._channel.receive_nowait()) is not None:
            if isinstance(message, Stop):
                self._is_stopped = True
            else:
                self._apply(message)

    def _apply(self, message: Add | Cancel) -> None:
        if isinstance(message, Cancel):
            self._scheduler.cancel(message.request_id)
            self._arrivals.pop(message.request_id, None)
        elif self._scheduler.fits(message.request):
            self._scheduler.add(message.request)
            now = self._arrivals[message.request.id] = self._clock()
            if self._max_queue_seconds is not None:
                self._deadlines.append((now + self._max_queue_seconds, message.request.id))
        else:
            failure = FailureEvent(
                message.request.id, FailureCode.TOO_LONG, "request exceeds the KV cache"
            )
            self._tell(failures=[failure])

    def _expire_queued(self) -> None:
        late: list[int] = []
        while self._deadlines and self._deadlines[0][0] <= self._clock():
            late.append(self._deadlines.popleft()[1])
        if not late:
            return
        message = f"Model is overloaded: no place became free within {self._max_queue_seconds:g} s"
        failures = self._scheduler.fail_queued(
            late, code=FailureCode.QUEUED_TOO_LONG, message=message
        )
        for failure in failures:
            del self._arrivals[failure.request_id]
        if failures:
            self._tell(failures=failures)

    def _complete(self, step: OpenStep) -> OpenStep | None:
        """Ends a step and tells what came of it; gives the next one if it is under way."""
        ahead = self._launch(after=step) if self._runner.plans_ahead else None
        self._take_inbox_meanwhile()
        try:
            output = self._runner.finish(step.handle)
        except BaseException as error:  # last resort: a failing step must not end the engine
            self._fail_step(step.plan, error)
        else:
            self._commit(step.plan, output, seconds=self._seconds_of(step))
        return self._draw(ahead)

    def _seconds_of(self, step: OpenStep) -> float:
        """How long the step that has just ended kept the device, which does one after the other."""
        begun = max(step.launched, self._device_free_since)
        self._device_free_since = self._clock()
        return self._device_free_since - begun

    def _launch(self, after: OpenStep | None = None) -> OpenStep | None:
        """The next step, under way; None if there is none, or it has failed."""
        plan = self._scheduler.plan()
        if plan is None:
            return None
        if self._arrivals:
            self._note_waits(plan)
        now = self._clock()
        try:
            return OpenStep(plan, self._runner.launch(plan, after and after.handle), now)
        except BaseException as error:  # last resort, as above
            self._fail_step(plan, error)
            return None

    def _note_waits(self, plan: Plan) -> None:
        for chunk in plan.chunks:
            arrived = self._arrivals.pop(chunk.request_id, None)
            if arrived is not None:
                self._waits.append(Wait(chunk.request_id, self._clock() - arrived))

    def _draw(self, step: OpenStep | None) -> OpenStep | None:
        """This step with its tokens on their way; None if there is none, or it has failed."""
        if step is None:
            return None
        try:
            drawn = self._runner.draw(step.handle, is_wanted=self._scheduler.is_wanted)
            return step._replace(handle=drawn)
        except BaseException as error:  # last resort, as above
            self._fail_step(step.plan, error)
            return None

    def _commit(self, plan: Plan, output: StepOutput, *, seconds: float) -> None:
        """Tells everybody in the plan what the step gave them."""
        failures: list[FailureEvent] = []
        if min(output.tokens, default=0) < 0:
            failures = self._fail_without_token(plan, output)
        events = self._scheduler.commit(plan, output, seconds=seconds)
        self._scrub()
        self._tell(events, failures=failures)

    def _fail_step(self, plan: Plan, error: BaseException) -> None:
        """Fails the requests of the plan, whose step raised; raises what is to end the engine."""
        if not is_library_failure(error):
            raise error
        log.error("a step of %d tokens failed", plan.num_tokens, exc_info=error)
        code, message = step_failure(error)
        failures = self._scheduler.fail_step(plan, code=code, message=message)
        self._scrub()
        self._tell(failures=failures)

    def _tell(
        self, tokens: list[TokenEvent] | None = None, *, failures: list[FailureEvent] | None = None
    ) -> None:
        waits, self._waits = self._waits, []
        self._channel.send(Step(tokens or [], failures or [], self._scheduler.statistics(), waits))

    def _scrub(self) -> None:
        if blocks := self._scheduler.take_unclean():
            self._runner.scrub(blocks)

    def _fail_without_token(self, plan: Plan, output: StepOutput) -> list[FailureEvent]:
        """Ends the requests that got no token, for each of the two reasons."""
        sampling = [chunk.request_id for chunk in plan.chunks if chunk.is_last]
        pairs = list(zip(sampling, output.tokens, strict=True))
        return self._scheduler.fail(
            [request_id for request_id, token in pairs if token == INVALID_TOKEN],
            code=FailureCode.NAN_LOGITS,
            message="the model produced logits that are not finite",
        ) + self._scheduler.fail(
            [request_id for request_id, token in pairs if token == IMPOSSIBLE_TOKEN],
            code=FailureCode.NO_TOKEN_ALLOWED,
            message="the request's constraints forbid every token, or its grammar is too ambiguous",
        )
