"""The engine loop by itself, with a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from millstream.core.blocks import BlockPool
from millstream.core.plan import Plan, StepOutput
from millstream.core.request import TokenEvent
from millstream.core.scheduler import Scheduler
from millstream.runtime.loop import EngineLoop
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, Stop, ToEngine
from tests.fakes import (
    FakeDraws,
    FakeLaunch,
    FakeRunner,
    LaunchingFake,
    Panic,
    alone,
    fake_info,
    make_request,
)


class Script:
    """A channel that plays a list of rounds: what is in the inbox before each plan.

    A number moves the clock by so many seconds.
    """

    def __init__(self, rounds: list[list[ToEngine | float]]) -> None:
        self.rounds = rounds
        self.now = 0.0
        self.failures: dict[int, tuple[float, str]] = {}
        self.answers: dict[int, list[int]] = {}
        self.waits: list[tuple[int, float]] = []

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
        self.waits += message.waits
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


def before_plans(*rounds: list[ToEngine | float]) -> list[list[ToEngine | float]]:
    """Rounds of which each is played before a plan, while nothing arrives during a step."""
    return [played for before in rounds for played in (before, [])]


def test_request_that_waits_too_long_fails_as_overloaded() -> None:
    first, second, third = (make_request(i, (i, 5), max_tokens=8) for i in (1, 2, 3))
    script = play(
        before_plans([Add(first), 6.0, Add(second)], [4.0], [0.5, Add(third)], [5.0], [0.5]),
        max_running=1,
    )
    assert script.failures == {2: (16.0, "overloaded")}
    assert script.answers == {1: alone(first), 3: alone(third)}


def test_request_that_runs_or_is_gone_is_not_late() -> None:
    first, second = (make_request(i, (i, 5), max_tokens=8) for i in (1, 2))
    script = play(before_plans([Add(first), Add(second)], [Cancel(2)], [100.0]), max_running=1)
    assert script.failures == {}
    assert script.answers == {1: alone(first)}


def make_device(**options: Any) -> tuple[LaunchingFake, list[list[int]]]:
    """Computes while the script's next round arrives. Also the request ids of its plans."""
    runner = LaunchingFake(fake_info(), **options)
    plans: list[list[int]] = []
    launch = runner.launch

    def noting(plan: Plan, after: FakeDraws | None = None) -> FakeLaunch:
        plans.append([chunk.request_id for chunk in plan.chunks])
        return launch(plan, after)

    runner.launch = noting  # type: ignore[method-assign]
    return runner, plans


def test_what_arrives_during_a_step_is_in_the_next_plan() -> None:
    """Rounds are played before a plan and during it in turns."""
    first, second, third = (make_request(i, (i, 5), max_tokens=4) for i in (1, 2, 3))
    runner, plans = make_device(plans_ahead=False)
    script = play(
        [[Add(first), Add(second)], [Add(third), Cancel(2)], [], [Cancel(3)]],
        max_running=4,
        runner=runner,
    )
    assert plans == [[1, 2], [1, 3], [1], [1]]
    assert script.answers == {1: alone(first)}


def test_the_next_step_is_planned_while_this_one_is_computed() -> None:
    first, second, third = (make_request(i, (i, 5), max_tokens=4) for i in (1, 2, 3))
    runner, plans = make_device()
    script = play(
        [[Add(first), Add(second)], [Add(third), Cancel(2)], [], [], [], [Cancel(3)]],
        max_running=4,
        runner=runner,
    )
    # What arrives during a step comes into the plan after the one that was made before it began.
    assert plans == [[1, 2], [1, 2], [1, 3], [1, 3]]
    assert script.answers == {1: alone(first)}
    assert runner.num_unwanted == 2


def test_an_answer_that_stops_wastes_one_row_and_is_told_once() -> None:
    long = make_request(1, (1, 5), max_tokens=9)
    stop = alone(long)[3]
    first = make_request(1, (1, 5), max_tokens=9, stop_token_ids=(stop,))
    runner, plans = make_device()
    script = play([[Add(first)]], max_running=4, runner=runner)
    assert script.answers == {1: alone(long)[:4]}
    assert plans == [[1]] * 5
    assert runner.num_unwanted == 1


def test_a_token_that_the_device_did_not_know_costs_one_row() -> None:
    late = iter([False, True])
    first = make_request(1, (1, 5), max_tokens=5)
    runner, plans = make_device(is_late=lambda: next(late, False))
    script = play([[Add(first)]], max_running=4, runner=runner)
    assert script.answers == {1: alone(first)}
    assert len(plans) == 6
    assert (runner.num_late, runner.num_unwanted) == (1, 1)


@pytest.mark.parametrize("plans_ahead", [False, True])
def test_a_request_without_finite_logits_fails_alone_and_its_blocks_are_scrubbed(
    *, plans_ahead: bool
) -> None:
    broken = iter([False, False, False, True])
    first, second = (make_request(i, (i, 5), max_tokens=6) for i in (1, 2))
    runner, _ = make_device(plans_ahead=plans_ahead, is_broken=lambda: next(broken, False))
    script = play([[Add(first), Add(second)]], max_running=4, runner=runner)
    assert script.failures == {2: (0.0, "nan_logits")}
    assert script.answers == {1: alone(first), 2: alone(second)[:1]}
    assert len(runner.scrubbed) == 1


def test_cancel_of_a_waiting_request_during_a_step_is_immediate() -> None:
    first, second = (make_request(i, (i, 5), max_tokens=3) for i in (1, 2))
    runner, _ = make_device(plans_ahead=False)
    script = play([[Add(first), Add(second)], [Cancel(2)]], max_running=1, runner=runner)
    assert script.answers == {1: alone(first)}
    assert script.failures == {}


def test_stop_during_a_step_ends_after_it() -> None:
    first = make_request(1, (1, 5), max_tokens=9)
    scripted = Script([[Add(first)], [Stop(), Add(make_request(2, (2, 5), max_tokens=9))]])
    scheduler = make_scheduler(max_running=2)
    runner, _ = make_device(plans_ahead=False)
    EngineLoop(scheduler=scheduler, runner=runner, channel=scripted).run()
    assert scripted.answers == {1: alone(first)[:1]}


@pytest.mark.parametrize("error", [RuntimeError("planted failure"), Panic("planted panic")])
@pytest.mark.parametrize("part", ["launch", "draw", "finish"])
def test_a_step_that_fails_fails_its_requests_only(part: str, error: BaseException) -> None:
    first, second = make_request(1, (1, 5, 6, 7)), make_request(2, (2, 5), max_tokens=3)
    broken = iter([part != "launch"])  # what the failing step writes
    runner, _ = make_device(
        plans_ahead=False, failing={0: part}, is_broken=lambda: next(broken, False)
    )
    runner.error = error
    script = play([[Add(first)], [Add(second)]], max_running=2, runner=runner)
    assert script.failures == {1: (0.0, "step_failed")}
    assert script.answers == {2: alone(second)}
    assert len(runner.scrubbed) == 1, "nobody knows what the step wrote"


def allocating() -> RuntimeError:
    """What torch raises on a CPU whose memory is not enough."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**56, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        allocating(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["python", "torch", "cuda", "driver", "cublas"],
)
def test_memory_that_runs_out_in_a_step(error: BaseException) -> None:
    first, second = make_request(1, (1, 5, 6, 7)), make_request(2, (2, 5), max_tokens=3)
    runner, _ = make_device(plans_ahead=False, failing={1: "launch"})
    runner.error = error
    script = play(before_plans([Add(first)], [], [Add(second)]), max_running=2, runner=runner)
    assert script.failures == {1: (0.0, "out_of_memory")}
    assert script.answers == {1: alone(first)[:1], 2: alone(second)}


def test_what_is_to_end_the_engine_ends_it() -> None:
    runner, _ = make_device(failing={0: "finish"})
    runner.error = SystemExit()
    with pytest.raises(SystemExit):
        play([[Add(make_request(1, (1, 5)))]], max_running=2, runner=runner)


@pytest.mark.parametrize(("part", "num_tokens"), [("launch", 0), ("draw", 1), ("finish", 1)])
def test_a_step_that_fails_ahead_fails_its_requests_only(part: str, num_tokens: int) -> None:
    first, second = (make_request(i, (i, 5), max_tokens=5) for i in (1, 2))
    runner, plans = make_device(failing={1: part})
    script = play([[Add(first)], [Add(second)]], max_running=2, runner=runner)
    assert script.failures == {1: (0.0, "step_failed")}
    assert script.answers.get(1, []) == alone(first)[:num_tokens]
    assert script.answers[2] == alone(second)
    assert plans[:2] == [[1], [1]]


def test_how_long_a_request_has_waited_is_told_when_it_runs() -> None:
    """Once, whatever becomes of it; nobody is told of one that never ran."""
    # A round before each plan, and one while its step is computed.
    script = play(
        [
            [Add(make_request(0, (1, 2), max_tokens=2))],
            [1.5, Add(make_request(1, (3, 4), max_tokens=4)), Add(make_request(2, (5,)))],
            [1.0, Cancel(2), Add(make_request(3, (6,), max_tokens=2))],
            [0.5],
            [],
            [20.0],
        ],
        max_running=1,
    )
    assert script.waits == [(0, 0.0), (1, 1.5)]
    assert set(script.failures) == {3}


def test_a_preempted_request_waits_once() -> None:
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=4, block_size=4), max_running=2, max_step_tokens=16
    )
    script = Script([[Add(make_request(number, (1, 2), max_tokens=12)) for number in range(2)]])
    EngineLoop(
        scheduler=scheduler, runner=FakeRunner(fake_info()), channel=script, clock=lambda: 0.0
    ).run()
    assert scheduler.statistics().num_preemptions > 0
    assert script.waits == [(0, 0.0), (1, 0.0)]


@pytest.mark.parametrize("plans_ahead", [False, True])
def test_the_scheduler_hears_how_long_each_step_kept_the_device(
    *, plans_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that was launched before the one in front of it had ended began when that did."""
    script = Script([[Add(make_request(1, (1, 5), max_tokens=5))], [], [7.0]])
    scheduler = make_scheduler(max_running=4)
    runner = LaunchingFake(fake_info(), plans_ahead=plans_ahead)
    lasts = iter([3.0, 1.0, 2.0, 5.0, 4.0])
    finish, commit, heard = runner.finish, scheduler.commit, list[float | None]()

    def taking_time(drawn: FakeDraws) -> StepOutput:
        script.now += next(lasts)
        return finish(drawn)

    def listening(
        plan: Plan, output: StepOutput, *, seconds: float | None = None
    ) -> list[TokenEvent]:
        heard.append(seconds)
        return commit(plan, output, seconds=seconds)

    monkeypatch.setattr(runner, "finish", taking_time)
    monkeypatch.setattr(scheduler, "commit", listening)
    EngineLoop(scheduler=scheduler, runner=runner, channel=script, clock=lambda: script.now).run()
    # The clock also moves by 7 between two steps; a device that works ahead works on meanwhile.
    assert heard == ([3.0, 8.0, 2.0, 5.0, 4.0] if plans_ahead else [3.0, 1.0, 2.0, 5.0, 4.0])
