"""The engine loop by itself, with a clock that the test moves."""

from __future__ import annotations

from millstream.core.blocks import BlockPool
from millstream.core.scheduler import Scheduler
from millstream.runtime.loop import EngineLoop
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, Stop, ToEngine
from tests.fakes import FakeRunner, alone, fake_info, make_request


class Script:
    """A channel that plays a list of rounds: what is in the inbox before each plan.

    A number moves the clock by so many seconds.
    """

    def __init__(self, rounds: list[list[ToEngine | float]]) -> None:
        self.rounds = rounds
        self.now = 0.0
        self.failures: dict[int, tuple[float, str]] = {}
        self.answers: dict[int, list[int]] = {}

    def receive_nowait(self) -> ToEngine | None:
        if not self.rounds:
            return None
        while self.rounds[0]:
            entry = self.rounds[0].pop(0)
            if not isinstance(entry, (int, float)):
                return entry
            self.now += entry
        self.rounds.pop(0)
        return None

    def receive(self) -> ToEngine:
        return self.receive_nowait() or Stop()

    def send(self, message: FromEngine) -> None:
        assert isinstance(message, Step)
        for failure in message.failures:
            self.failures[failure.request_id] = (self.now, failure.code)
        for event in message.tokens:
            self.answers.setdefault(event.request_id, []).extend(event.token_ids)


def play(rounds: list[list[ToEngine | float]], *, max_running: int) -> Script:
    script = Script(rounds)
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=32, block_size=4), max_running=max_running, max_step_tokens=16
    )
    EngineLoop(
        scheduler=scheduler,
        runner=FakeRunner(fake_info()),
        channel=script,
        max_queue_seconds=10.0,
        clock=lambda: script.now,
    ).run()
    assert scheduler.statistics().num_blocks_used == 0
    return script


def test_request_that_waits_too_long_fails_as_overloaded() -> None:
    first, second, third = (make_request(i, (i, 5), max_tokens=8) for i in (1, 2, 3))
    script = play(
        [[Add(first), 6.0, Add(second)], [4.0], [0.5, Add(third)], [5.0], [0.5]], max_running=1
    )
    assert script.failures == {2: (16.0, "overloaded")}
    assert script.answers == {1: alone(first), 3: alone(third)}


def test_request_that_runs_or_is_gone_is_not_late() -> None:
    first, second = (make_request(i, (i, 5), max_tokens=8) for i in (1, 2))
    script = play([[Add(first), Add(second)], [Cancel(2)], [100.0]], max_running=1)
    assert script.failures == {}
    assert script.answers == {1: alone(first)}
