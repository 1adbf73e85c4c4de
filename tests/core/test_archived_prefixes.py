"""Blocks that go to an archive and come back: answers stay those that each request gets alone."""

from __future__ import annotations

import random

import pytest

from millstream.core.archived_prefixes import MAX_FETCHES, MIN_TOKENS
from millstream.core.blocks import BlockPool
from millstream.core.request import FailureCode
from millstream.core.scheduler import Scheduler
from tests.core.test_scheduler import Driver, assert_as_alone, run_random_schedule
from tests.fake_archive import FakeArchive
from tests.fakes import FakeRunner, LaunchingFake, alone, fake_info, make_request

LONG = tuple(range(1, 41)) * 3  # more than MIN_TOKENS
SIZE = 4


class Setup:
    """A scheduler with an archive, and a second one over the same archive after a restart."""

    def __init__(
        self,
        *,
        num_blocks: int = 128,
        max_running: int = 8,
        archive: FakeArchive | None = None,
        source: random.Random | None = None,
    ) -> None:
        info = fake_info(num_blocks=num_blocks, block_size=SIZE)
        self.runner = FakeRunner(info)
        self.archive = FakeArchive(self.runner, source)
        if archive is not None:
            self.archive.kept = archive.kept
        self.scheduler = Scheduler(
            pool=BlockPool(num_blocks=num_blocks, block_size=SIZE),
            max_running=max_running,
            max_step_tokens=64,
            archive=self.archive,
        )
        self.driver = Driver(self.scheduler, self.runner)

    def answer(self, request_id: int, prompt: tuple[int, ...], *, salt: str = "") -> list[int]:
        request = make_request(request_id, prompt, max_tokens=6, cache_salt=salt)
        self.scheduler.add(request)
        self.driver.run()
        assert self.driver.answers[request_id] == alone(request)
        return self.driver.answers[request_id]


def after_first_turn() -> tuple[Setup, tuple[int, ...]]:
    """A restarted engine, and the history of the turn that the one before has answered."""
    before = Setup()
    history = LONG + tuple(before.answer(1, LONG))
    assert len(before.archive.kept) == (len(history) - 1) // SIZE
    return Setup(archive=before.archive), history


def test_the_next_turn_after_a_restart_computes_only_what_is_new() -> None:
    setup, history = after_first_turn()
    setup.answer(2, (*history, 7, 7, 7))
    assert setup.driver.num_cached[2] == (len(history) - 1) // SIZE * SIZE
    assert setup.driver.plans[0].num_tokens <= SIZE + 3
    setup.driver.assert_clean()


def test_another_salt_finds_nothing() -> None:
    setup, history = after_first_turn()
    setup.answer(2, (*history, 7), salt="other")
    assert setup.driver.num_cached[2] == 0


def test_what_is_in_memory_is_not_fetched() -> None:
    setup, history = after_first_turn()
    setup.answer(2, (*history, 7))
    num_restored = setup.archive.num_restored
    setup.answer(3, (*history, 8))
    assert setup.driver.num_cached[3] == setup.driver.num_cached[2]
    assert setup.archive.num_restored == num_restored


def test_a_short_prefix_is_computed() -> None:
    before = Setup()
    short = LONG[: MIN_TOKENS - 7]
    before.answer(1, short)
    assert before.archive.kept
    setup = Setup(archive=before.archive)
    setup.answer(2, short)
    assert setup.driver.num_cached[2] == setup.archive.num_restored == 0


def test_nobody_waits_for_a_fetch_of_somebody_else() -> None:
    setup, history = after_first_turn()
    slow, quick = make_request(2, (*history, 7), max_tokens=4), make_request(3, (9,), max_tokens=4)
    setup.archive.take_arrived = list  # type: ignore[method-assign]
    setup.scheduler.add(slow)
    setup.scheduler.add(quick)
    for _ in range(5):
        setup.driver.step()
    assert setup.driver.finished == {3: "length"}
    del setup.archive.take_arrived
    setup.driver.run()
    assert setup.driver.answers[2] == alone(slow)
    assert setup.driver.num_cached[2] > 0


def test_only_so_many_are_fetched_at_a_time() -> None:
    setup, history = after_first_turn()
    requests = [make_request(i, (*history, i), max_tokens=3) for i in range(2, 5 + MAX_FETCHES)]
    setup.archive.take_arrived = list  # type: ignore[method-assign]
    for request in requests:
        setup.scheduler.add(request)
    setup.driver.step()
    assert setup.archive.num_fetches == MAX_FETCHES
    assert not setup.driver.plans
    del setup.archive.take_arrived
    setup.driver.run()
    assert all(setup.driver.answers[request.id] == alone(request) for request in requests)


@pytest.mark.parametrize("how", ["cancelled", "overdue"])
def test_a_request_may_leave_while_its_prefix_is_fetched(how: str) -> None:
    setup, history = after_first_turn()
    setup.archive.take_arrived = list  # type: ignore[method-assign]
    setup.scheduler.add(make_request(2, (*history, 7)))
    assert setup.scheduler.plan() is None
    if how == "cancelled":
        assert setup.scheduler.cancel(2)
    else:
        code = FailureCode.QUEUED_TOO_LONG
        assert setup.scheduler.fail_queued([2], code=code, message="late")
    assert setup.archive.num_fetches == 0
    setup.driver.run()
    setup.driver.assert_clean()
    del setup.archive.take_arrived
    setup.answer(3, (*history, 7))


def test_an_answer_that_is_cut_is_kept_and_one_that_fails_is_not() -> None:
    setup = Setup()
    for request_id, prompt in ((1, LONG), (2, LONG[::-1])):
        setup.scheduler.add(make_request(request_id, prompt, max_tokens=30))
        setup.driver.step()
        setup.driver.step()
    setup.scheduler.fail([2], code=FailureCode.NAN_LOGITS, message="")
    while setup.scheduler.save_blocks():
        pass
    assert not setup.archive.kept
    assert setup.scheduler.cancel(1)
    while setup.scheduler.save_blocks():
        pass
    assert len(setup.archive.kept) == len(LONG) // SIZE
    again = Setup(archive=setup.archive)
    again.answer(3, (*LONG, 7))
    assert again.driver.num_cached[3] == len(LONG)
    never = Setup()
    never.scheduler.add(make_request(4, LONG * 2))
    never.driver.step()
    assert never.scheduler.cancel(4)
    assert not never.scheduler.save_blocks()


def test_what_comes_back_spares_the_beginning_that_is_in_memory() -> None:
    """The blocks before those that are fetched are the oldest that nobody holds."""
    before = Setup()
    before.answer(1, LONG)
    setup = Setup(archive=before.archive, num_blocks=len(LONG) // SIZE + 2)
    setup.archive.kept, kept = {}, setup.archive.kept
    setup.answer(2, LONG[:41])
    setup.answer(3, tuple(range(30, 44)))
    setup.archive.kept = kept
    setup.answer(4, LONG)
    assert setup.driver.num_cached[4] == (len(LONG) - 1) // SIZE * SIZE


def test_what_was_overwritten_before_it_was_saved_is_counted() -> None:
    setup = Setup(num_blocks=32)
    request = make_request(1, LONG, max_tokens=2)
    setup.scheduler.add(request)
    setup.driver.saves = False
    setup.driver.run()
    for request_id in (2, 3):
        setup.answer(request_id, tuple(request_id + i for i in range(100)))
    setup.driver.saves = True
    while setup.scheduler.save_blocks():
        pass
    statistics = setup.scheduler.statistics().archive
    assert statistics is not None
    assert statistics.num_skipped > 0
    assert setup.archive.kept


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("seed", range(400))
def test_random_schedule_with_an_archive_equals_solo(
    seed: int, plans_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are lost, found damaged and come late, in pieces, while requests come and go."""
    monkeypatch.setattr("millstream.core.archived_prefixes.MIN_TOKENS", 1)
    source = random.Random(seed)
    num_blocks, block_size = source.randint(2, 14), source.choice([1, 2, 4])
    max_running = source.randint(1, 6)
    broken = source.choice([0.0, 0.02]) if plans_ahead else 0.0
    runner = LaunchingFake(
        fake_info(num_blocks=num_blocks, block_size=block_size),
        failing=dict.fromkeys(source.sample(range(60), source.choice([0, 0, 5])), "finish"),
        is_late=lambda: plans_ahead and source.random() < 0.1,
        is_broken=lambda: source.random() < broken,
    )
    archive = FakeArchive(runner, source)

    for _ in range(2):  # a restart between them
        scheduler = Scheduler(
            pool=BlockPool(num_blocks=num_blocks, block_size=block_size),
            max_running=max_running,
            max_step_tokens=max_running + source.randint(0, 12),
            archive=archive,
        )
        driver = Driver(scheduler, runner, plans_ahead=lambda: plans_ahead)
        requests, cancelled = run_random_schedule(source, driver, num_blocks * block_size)
        for request_id, request in requests.items():
            how = driver.finished.get(request_id)
            assert (how is None) == (request_id in cancelled)
            assert_as_alone(driver, request, is_whole=how in ("stop", "length"))
        archive.lose()
    assert archive.num_fetches == 0


def test_random_schedules_reach_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random test is only worth something if blocks come back, and some do not."""
    monkeypatch.setattr("millstream.core.archived_prefixes.MIN_TOKENS", 1)
    restored = damaged = 0
    for seed in range(100):
        source = random.Random(seed)
        runner = FakeRunner(fake_info(num_blocks=8, block_size=2))
        archive = FakeArchive(runner, source)
        for _ in range(2):
            scheduler = Scheduler(
                pool=BlockPool(num_blocks=8, block_size=2),
                max_running=4,
                max_step_tokens=16,
                archive=archive,
            )
            run_random_schedule(source, Driver(scheduler, runner), 16)
        restored += archive.num_restored
        damaged += archive.num_damaged
    assert restored > 100
    assert damaged > 10
