"""The engine loop: take the inbox, plan, run the step, commit, send one message.

Rules:
1. One message per step, however many requests it serves. Idle means blocked in `receive()`.
2. A step that raises fails the requests of that step and nobody else.
3. A request whose logits are not finite fails alone.
4. A cancel that arrived before a plan is honoured by that plan.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from millstream.core.info import EngineInfo
from millstream.core.request import INVALID_TOKEN, FailureEvent, Plan
from millstream.core.scheduler import Scheduler
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, Stop, ToEngine

log = logging.getLogger(__name__)


class Runner(Protocol):
    """The model side of the engine, as the loop needs it."""

    @property
    def info(self) -> EngineInfo: ...

    def step(self, plan: Plan) -> Sequence[int]:
        """Computes the plan; one token per sampling chunk, -1 where logits were not finite."""
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

    def __init__(self, *, scheduler: Scheduler, runner: Runner, channel: Channel) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._channel = channel

    def run(self) -> None:
        """Returns when Stop was received."""
        while self._take_inbox():
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
        else:
            failure = FailureEvent(
                message.request.id, "context_length_exceeded", "request exceeds the KV cache"
            )
            self._channel.send(Step([], [failure], self._scheduler.statistics()))

    def _advance(self, plan: Plan) -> None:
        failures: list[FailureEvent] = []
        try:
            sampled = self._runner.step(plan)
        except Exception as error:  # last resort: a failing step must not end the engine
            log.exception("a step of %d tokens failed", plan.num_tokens)
            failures = self._scheduler.fail(
                [chunk.request_id for chunk in plan.chunks],
                code="step_failed",
                message=f"generation failed: {type(error).__name__}",
            )
            self._channel.send(Step([], failures, self._scheduler.statistics()))
            return
        sampling = [chunk.request_id for chunk in plan.chunks if chunk.sampling is not None]
        invalid = [i for i, token in zip(sampling, sampled, strict=True) if token == INVALID_TOKEN]
        if invalid:
            failures, blocks = self._scheduler.fail_suspect(
                invalid, code="nan_logits", message="the model produced logits that are not finite"
            )
            self._runner.scrub(blocks)
        events = self._scheduler.commit(plan, sampled)
        self._channel.send(Step(events, failures, self._scheduler.statistics()))
