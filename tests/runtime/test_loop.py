"""The engine loop by itself, with a clock that the test moves."""

from __future__ import annotations

from millstream.core.blocks import BlockPool
from millstream.core.plan import Plan, StepOutput
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


def make_scheduler(*, max_running: int) -> Scheduler:
    pool = BlockPool(num_blocks=32, block_size=4)
    return Scheduler(pool=pool, max_running=max_running, max_step_tokens=16)


def play(
    rounds: list[list[ToEngine | float]], *, max_running: int, runner: FakeRunner | None = None
) -> Script:
    script = Script(rounds)
    scheduler = make_scheduler(max_running=max_running)
    EngineLoop(
        scheduler=scheduler,
        runner=runner or FakeRunner(fake_info()),
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


class SlowDevice(FakeRunner):
    """Computes a step when it is finished; the script's next round arrives while it does."""

    def launch(self, plan: Plan) -> Plan:
        self.launched = plan
        return plan

    def finish(self, launched: Plan) -> StepOutput:
        assert launched is self.launched
        return self.step(launched)


def test_what_arrives_during_a_step_is_in_the_next_plan() -> None:
    """Rounds are played before a plan and during it in turns."""
    first, second, third = (make_request(i, (i, 5), max_tokens=4) for i in (1, 2, 3))
    runner = SlowDevice(fake_info())
    plans: list[list[int]] = []
    step = runner.step
    runner.step = lambda plan: plans.append([c.request_id for c in plan.chunks]) or step(plan)  # type: ignore[method-assign, func-returns-value]
    script = play(
        [[Add(first), Add(second)], [Add(third), Cancel(2)], [], [Cancel(3)]],
        max_running=4,
        runner=runner,
    )
    # The second ends after the step it was part of, the third likewise, before any later plan.
    assert plans == [[1, 2], [1, 3], [1], [1]]
    assert script.answers[1] == alone(first)
    assert (len(script.answers[2]), len(script.answers[3])) == (1, 1)


def test_cancel_of_a_waiting_request_during_a_step_is_immediate() -> None:
    first, second = (make_request(i, (i, 5), max_tokens=3) for i in (1, 2))
    script = play(
        [[Add(first), Add(second)], [Cancel(2)]], max_running=1, runner=SlowDevice(fake_info())
    )
    assert script.answers == {1: alone(first)}
    assert script.failures == {}


def test_stop_during_a_step_ends_after_it() -> None:
    first = make_request(1, (1, 5), max_tokens=9)
    scripted = Script([[Add(first)], [Stop(), Add(make_request(2, (2, 5), max_tokens=9))]])
    scheduler = make_scheduler(max_running=2)
    EngineLoop(scheduler=scheduler, runner=SlowDevice(fake_info()), channel=scripted).run()
    assert scripted.answers == {1: alone(first)[:1]}


def test_a_step_that_fails_at_its_end_fails_its_requests_only() -> None:
    first, second = (make_request(i, (i, 5), max_tokens=3) for i in (1, 2))
    script = play(
        [[Add(first)], [Add(second)]],
        max_running=2,
        runner=SlowDevice(fake_info(), failing=frozenset([0])),
    )
    assert script.failures == {1: (0.0, "step_failed")}
    assert script.answers == {2: alone(second)}
