"""Guesses change no answer, however many are right, and are tried only where they pay."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from millstream.core.guesses import Guesses
from millstream.core.lookup import Lookup
from millstream.core.plan import (
    IMPOSSIBLE_TOKEN,
    INVALID_TOKEN,
    REJECTED_TOKEN,
    Chunk,
    StepOutput,
)
from millstream.core.row_costs import RowCosts
from millstream.core.settling import settled
from tests.core.test_scheduler import (
    Driver,
    assert_as_alone,
    make_scheduler,
    run_random_schedule,
)
from tests.fakes import LaunchingFake, alone, fake_info, make_request
from tests.oracle import FreeRows, Oracle


@pytest.mark.parametrize("seed", range(500))
def test_guessing_changes_no_answer(seed: int) -> None:
    """Random schedules whose steps fail, whose logits are not finite, and whose guesses are right
    sometimes, seldom or always."""
    source = random.Random(seed)
    num_blocks, block_size = source.randint(2, 14), source.choice([1, 2, 4])
    max_running = source.randint(1, 6)
    max_step_tokens = max_running + source.randint(0, 12)
    truth, broken = source.choice([0.0, 0.5, 0.9, 1.0]), source.choice([0.0, 0.0, 0.02])
    parts = ("launch", "draw", "finish")
    num_failing = 5 if source.random() < 0.2 else 0
    guesses = Guesses(
        source.randint(1, 8),
        costs=FreeRows() if source.random() < 0.7 else RowCosts(),
        predictor=lambda request: Oracle(request, lambda: source.random() < truth),
    )
    scheduler, _ = make_scheduler(
        num_blocks=num_blocks,
        block_size=block_size,
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        guesses=guesses,
    )
    runner = LaunchingFake(
        fake_info(num_blocks=num_blocks, block_size=block_size),
        failing={index: source.choice(parts) for index in source.sample(range(60), num_failing)},
        plans_ahead=False,
        is_broken=lambda: source.random() < broken,
    )
    driver = Driver(scheduler, runner)
    driver.seconds = source.choice([lambda plan: None, lambda plan: source.random()])
    requests, cancelled = run_random_schedule(source, driver, num_blocks * block_size)
    assert runner.largest_step <= max_step_tokens
    assert not runner.nan_slots, "what is not finite was left in free blocks"
    for request_id, request in requests.items():
        how = driver.finished.get(request_id)
        assert (how is None) == (request_id in cancelled)
        assert how != "nan_logits" or request_id in runner.planted
        assert how != "failed" or num_failing
        assert_as_alone(driver, request, is_whole=how in ("stop", "length"))


def test_random_schedules_guess_right_and_wrong() -> None:
    """The random test is worth something only if many guesses come true, and many do not."""
    source = random.Random(0)
    guesses = Guesses(
        4,
        costs=FreeRows(),
        predictor=lambda request: Oracle(request, lambda: source.random() < 0.7),
    )
    scheduler, runner = make_scheduler(num_blocks=14, guesses=guesses)
    driver = Driver(scheduler, runner)
    run_random_schedule(source, driver, 56)
    found = scheduler.statistics()
    assert 20 < found.num_accepted_tokens < found.num_draft_tokens - 20
    assert found.num_drafts > 20


def test_right_guesses_save_steps() -> None:
    request = make_request(1, (1, 2, 3), max_tokens=21)
    num_steps = {}
    for most in (0, 3):
        scheduler, runner = make_scheduler(
            guesses=Guesses(most, costs=FreeRows(), predictor=Oracle)
        )
        driver = Driver(scheduler, runner)
        scheduler.add(request)
        driver.run()
        assert driver.answers[1] == alone(request)
        num_steps[most] = runner.num_steps
    assert num_steps == {0: 21, 3: 6}


def test_guesses_take_no_block_that_somebody_waits_for() -> None:
    guesses = Guesses(8, costs=FreeRows(), predictor=Oracle)
    scheduler, runner = make_scheduler(num_blocks=20, block_size=1, guesses=guesses)
    driver = Driver(scheduler, runner)
    scheduler.add(make_request(1, (1,), max_tokens=19))
    driver.step()
    driver.step()
    assert len(driver.plans[-1].chunks) > 5
    scheduler.add(make_request(2, (2,) * 8, max_tokens=1))
    driver.step()
    assert {chunk.request_id for chunk in driver.plans[-1].chunks} == {1, 2}


def test_wrong_guesses_give_their_blocks_back() -> None:
    guesses = Guesses(8, costs=FreeRows(), predictor=lambda request: Oracle(request, lambda: False))
    scheduler, runner = make_scheduler(num_blocks=40, block_size=2, guesses=guesses)
    driver = Driver(scheduler, runner)
    scheduler.add(make_request(1, (1, 2, 3), max_tokens=30))
    while driver.step():  # check() after each says that no block is held for nothing
        pass
    assert scheduler.statistics().num_draft_tokens > 50
    assert scheduler.statistics().num_accepted_tokens == 0


def test_what_counts_of_a_step() -> None:
    def chunk(request_id: int, assumed: tuple[int, ...] = ()) -> Chunk:
        request = make_request(request_id, (1,))
        return Chunk(request, (1,), 0, [], [1], is_last=True, assumed=assumed)

    chunks = [chunk(1), chunk(2), chunk(3), chunk(1, (5,)), chunk(1, (5, 6)), chunk(2, (7,))]
    assert settled(chunks, [5, 7, 9, 6, 8, 4]) == [5, 7, 9, 6, 8, 4]
    no = REJECTED_TOKEN
    assert settled(chunks, [5, 8, 9, 7, 8, 4]) == [5, 8, 9, 7, no, no]
    assert settled(chunks, [4, 8, 9, 6, 8, 4]) == [4, 8, 9, no, no, no]
    nothing = IMPOSSIBLE_TOKEN
    assert settled(chunks, [5, nothing, 9, nothing, 8, 4]) == [5, nothing, 9, no, no, no]
    nan = INVALID_TOKEN
    assert settled(chunks, [5, 7, nan, 6, nan, 4]) == [no, 7, nan, no, no, 4]


def test_logits_that_are_not_finite_beside_a_guess_are_computed_again_without() -> None:
    scheduler, _ = make_scheduler(guesses=Guesses(3, costs=FreeRows(), predictor=Oracle))
    scheduler.add(request := make_request(1, (1, 2, 3), max_tokens=9))
    driver = Driver(scheduler, LaunchingFake(fake_info(), plans_ahead=False))
    driver.step()
    plan = scheduler.plan()
    assert plan is not None
    assert len(plan.chunks) == 4
    events = scheduler.commit(plan, StepOutput([REJECTED_TOKEN] * 4))
    assert events == []
    scheduler.check()
    driver.run()
    assert max(len(plan.chunks) for plan in driver.plans) == 1
    assert driver.answers[1] == alone(request)


def test_nothing_is_guessed_behind_the_end_of_an_answer() -> None:
    prompt = (1, 2, 3)
    answer = alone(make_request(1, prompt, max_tokens=9))
    scheduler, runner = make_scheduler(guesses=Guesses(8, costs=FreeRows(), predictor=Oracle))
    driver = Driver(scheduler, runner)
    scheduler.add(make_request(1, prompt, max_tokens=9, stop_token_ids=(answer[3],)))
    driver.run()
    assert driver.answers[1] == answer[:4]
    assert all(answer[3] not in chunk.assumed for plan in driver.plans for chunk in plan.chunks)


def look_up(prompt: list[int], answer: list[int]) -> Lookup:
    lookup, tokens = Lookup(len(prompt)), list(prompt)
    lookup.advance(tokens)
    for token in answer:
        tokens.append(token)
        lookup.advance(tokens)
    return lookup


def test_what_followed_the_latest_tokens_before_follows_again() -> None:
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 90]
    assert look_up(prompt, []).guess(prompt, 3) == ()
    assert look_up(prompt, [2, 3]).guess([*prompt, 2, 3], 3) == ()
    assert look_up(prompt, [2, 3, 4]).guess([*prompt, 2, 3, 4], 3) == (5, 6, 7)


def test_a_replaced_token_does_not_end_a_quotation() -> None:
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 90]
    known = [*prompt, 1, 2, 3, 50]
    assert look_up(prompt, known[9:]).guess(known, 2) == (5, 6)
    known += [60]
    assert look_up(prompt, known[9:]).guess(known, 2) == ()


def test_what_repeats_itself_goes_on_repeating() -> None:
    known = [1, 2, 3, 8, 9, 8, 9, 8, 9]
    assert look_up(known[:3], known[3:]).guess(known, 5) == (8, 9, 8, 9, 8)


def test_the_rate_is_that_of_the_latest_predictions() -> None:
    quoted = list(range(100, 120))
    lookup = look_up([*quoted, 1], quoted)
    assert lookup.rate > 0.9
    snippets = [*quoted[:3], 1, 2, *quoted[5:8], 3, 4, *quoted[10:13], 5, 6]
    assert look_up([*quoted, 1], snippets).rate < 0.15


def rows_of_late_steps(seconds: Callable[[int], float]) -> list[int]:
    """Decode rows of the last 100 steps of one answer, all of whose guesses come true, where a step
    with n rows takes seconds(n)."""
    scheduler, runner = make_scheduler(num_blocks=500, guesses=Guesses(8, predictor=Oracle))
    driver = Driver(scheduler, runner)
    driver.seconds = lambda plan: seconds(len(plan.chunks))
    scheduler.add(request := make_request(1, (1, 2, 3), max_tokens=900))
    driver.run()
    assert driver.answers[1] == alone(request)
    return [len(plan.chunks) for plan in driver.plans[-110:-5]][:100]


def test_rows_are_tried_while_they_pay() -> None:
    """A row costs nothing up to 4, then half a step each."""
    rows = rows_of_late_steps(lambda n: 0.01 * (1 + max(n - 4, 0) / 2))
    assert rows.count(4) > 80
    assert rows.count(8) < 5


def test_rows_that_cost_as_much_as_steps_are_seldom_tried() -> None:
    rows = rows_of_late_steps(lambda n: 0.01 * n)
    assert rows.count(1) > 90


def test_one_slow_step_does_not_end_guessing() -> None:
    costs = RowCosts()
    for _ in range(20):
        costs.observe(1, 0.01)
        costs.observe(4, 0.011)
    assert costs.ratio(1, filled_to=4) == pytest.approx(1.1, abs=0.01)
    costs.observe(4, 10.0)
    assert costs.ratio(1, filled_to=4) < 1.5
    for _ in range(1000):
        costs.observe(1, 0.01)
    assert costs.ratio(1, filled_to=4) < 1.1


def test_a_machine_that_gets_busy_changes_no_relation() -> None:
    costs = RowCosts()
    for busy in (1, 3):
        for _ in range(20):
            costs.observe(1, 0.01 * busy)
            costs.observe(4, 0.015 * busy)
        assert costs.ratio(1, filled_to=4) == pytest.approx(1.5, abs=0.05)


def test_a_step_without_guesses_is_measured_now_and_then() -> None:
    rows = rows_of_late_steps(lambda n: 0.01)
    assert 1 <= rows.count(1) <= 3
