"""The scheduler against what each request answers alone, under every schedule we can think of."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable

import pytest

from millstream.core.archive import BlockArchive
from millstream.core.blocks import BlockPool
from millstream.core.guesses import Guesses
from millstream.core.plan import INVALID_TOKEN, UNKNOWN_TOKEN, Plan, StepOutput
from millstream.core.request import FailureCode, Request, TokenLogprob
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.core.waiting_line import MAX_OVERTAKEN
from tests.fakes import (
    FakeRunner,
    LaunchingFake,
    alone,
    fake_info,
    logprobs_alone,
    make_request,
    scores_alone,
)


def make_scheduler(
    *,
    num_blocks: int = 64,
    block_size: int = 4,
    max_running: int = 8,
    max_step_tokens: int = 64,
    target_seconds: float | None = None,
    states: StatePool | None = None,
    archive: BlockArchive | None = None,
    guesses: Guesses | None = None,
) -> tuple[Scheduler, FakeRunner]:
    pool = BlockPool(num_blocks=num_blocks, block_size=block_size)
    scheduler = Scheduler(
        pool=pool,
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        target_seconds=target_seconds,
        states=states,
        archive=archive,
        guesses=guesses,
    )
    info = fake_info(num_blocks=num_blocks, block_size=block_size, max_step_tokens=max_step_tokens)
    return scheduler, FakeRunner(info)


class Driver:
    """Steps a scheduler with a runner and collects answers, checking invariants all the way.

    plans_ahead: says before each step whether the next plan is made while it is open.
    seconds: says of each plan how long its step took.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: FakeRunner,
        *,
        plans_ahead: Callable[[], bool] = lambda: False,
        seconds: Callable[[Plan], float | None] = lambda plan: None,
    ) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.plans_ahead = plans_ahead
        self.seconds = seconds
        self.answers: dict[int, list[int]] = defaultdict(list)
        self.finished: dict[int, str] = {}
        self.num_cached: dict[int, int] = {}
        self.plans: list[Plan] = []
        self.num_ahead = 0
        self.saves = True
        self.logprobs: dict[int, list[TokenLogprob]] = defaultdict(list)
        self.scores: dict[int, list[TokenLogprob]] = defaultdict(list)
        self._open: tuple[Plan, object] | None = None

    def step(self) -> bool:
        """Ends one plan; False if there is none."""
        num_plans = len(self.plans)
        if self._open is None:
            self._open = self._draw(self._launch(None))
        if self._open is None:
            return len(self.plans) > num_plans
        plan, state = self._open
        ahead = self._launch(state) if self.plans_ahead() else None
        self.num_ahead += ahead is not None
        try:
            output = self.runner.finish(state)
        except RuntimeError:
            self._fail(plan)
        else:
            self._commit(plan, output)
        self._open = self._draw(ahead)
        return True

    def _launch(self, after: object) -> tuple[Plan, object] | None:
        plan = self.scheduler.plan()
        self.scheduler.check()
        if plan is None:
            return None
        self.plans.append(plan)
        try:
            return plan, self.runner.launch(plan, after)
        except RuntimeError:
            self._fail(plan)
            return None

    def _draw(self, launched: tuple[Plan, object] | None) -> tuple[Plan, object] | None:
        if launched is None:
            return None
        plan, state = launched
        try:
            return plan, self.runner.draw(state, is_wanted=self.scheduler.is_wanted)
        except RuntimeError:
            self._fail(plan)
            return None

    def _fail(self, plan: Plan) -> None:
        for failure in self.scheduler.fail_step(plan, code=FailureCode.STEP_FAILED, message=""):
            assert failure.request_id not in self.finished
            self.finished[failure.request_id] = "failed"
        self._scrub()

    def _scrub(self) -> None:
        if blocks := self.scheduler.take_unclean():
            self.runner.scrub(blocks)
        self.scheduler.check()

    def _commit(self, plan: Plan, output: StepOutput) -> None:
        sampled = [chunk.request_id for chunk in plan.chunks if chunk.is_last]
        broken = [
            i for i, token in zip(sampled, output.tokens, strict=True) if token == INVALID_TOKEN
        ]
        for failure in self.scheduler.fail(broken, code=FailureCode.NAN_LOGITS, message=""):
            self.finished[failure.request_id] = "nan_logits"
        for event in self.scheduler.commit(plan, output, seconds=self.seconds(plan)):
            assert event.request_id not in self.finished, "an event after the end"
            self.answers[event.request_id] += event.token_ids
            self.num_cached[event.request_id] = event.num_cached
            self.logprobs[event.request_id] += event.logprobs
            self.scores[event.request_id] += event.prompt_logprobs
            assert event.token_ids or event.prompt_logprobs, "an event that says nothing"
            if event.finish_reason is not None:
                self.finished[event.request_id] = event.finish_reason
        self._scrub()
        if self.saves:
            self.scheduler.save_blocks()

    def run(self, *, limit: int = 10_000) -> None:
        for _ in range(limit):
            if not self.step() and not self.scheduler.has_work:
                return
        raise AssertionError("the scheduler does not come to an end")

    def assert_clean(self) -> None:
        statistics = self.scheduler.statistics()
        assert (statistics.num_running, statistics.num_waiting) == (0, 0)
        assert statistics.num_blocks_used == 0
        assert statistics.num_states_used == 0
        assert not self.scheduler.has_work


def random_request(
    source: random.Random, request_id: int, room: int, leader: Request | None = None
) -> Request:
    """Prompts from a vocabulary of two tokens share prefixes all the time."""
    length = source.randint(1, max(1, room // 2))
    shared = source.choice([(), (1,) * length, (1, 2) * (length // 2)])
    prompt = (shared + tuple(source.randint(1, 2) for _ in range(length)))[:length]
    if leader is not None:
        prompt, length = leader.prompt, len(leader.prompt)
    return make_request(
        request_id,
        prompt,
        max_tokens=source.randint(1, max(1, room - length)),
        stop_token_ids=source.choice([(), (3,), (3, 7, 11), (1,)]),
        priority=source.choice([0, 0, 0, 1, -1]),
        cache_salt=source.choice(["", "", "other"]),
        logprobs=source.choice([None, None, 0]),
        prompt_logprobs=source.choice([None, None, None, 0]),
        follows=None if leader is None else leader.id,
    )


def run_random_schedule(
    source: random.Random, driver: Driver, room: int
) -> tuple[dict[int, Request], set[int]]:
    """Runs requests of up to `room` tokens to the end; those, and which were cancelled."""
    requests: dict[int, Request] = {}
    cancelled: set[int] = set()
    for request_id in range(source.randint(1, 12)):
        leader = (
            source.choice(list(requests.values())) if source.random() < 0.2 and requests else None
        )
        request = random_request(source, request_id, room, leader)
        assert driver.scheduler.fits(request)
        requests[request_id] = request
        driver.scheduler.add(request)
        driver.scheduler.check()
        for _ in range(source.choice([0, 0, 1, 3])):
            driver.step()
        if source.random() < 0.2:
            victim = source.randint(0, request_id)
            if driver.scheduler.cancel(victim):
                cancelled.add(victim)
            driver.scheduler.check()
    driver.run()
    driver.assert_clean()
    return requests, cancelled


def assert_as_alone(driver: Driver, request: Request, *, is_whole: bool) -> None:
    """Its tokens and scores so far are those that it gets alone; all of them if it is whole."""
    expected, answer = alone(request), driver.answers[request.id]
    expected_scores, scores = scores_alone(request), driver.scores[request.id]
    assert driver.logprobs[request.id] == logprobs_alone(request, answer)
    assert answer == (expected if is_whole else expected[: len(answer)])
    assert scores == (expected_scores if is_whole else expected_scores[: len(scores)])
    if is_whole:
        is_stop = expected[-1] in request.stop_token_ids
        assert driver.finished[request.id] == ("stop" if is_stop else "length")


def random_states(source: random.Random, *, block_size: int, num_own: int) -> StatePool:
    """A pool that often is too small for all who may run, and seldom leaves room for snapshots."""
    return StatePool(
        num_slots=source.randint(num_own, 8 * num_own),
        block_size=block_size,
        num_own=num_own,
        interval=source.choice([1, 4, 100]),
    )


@pytest.mark.parametrize("has_states", [False, True])
@pytest.mark.parametrize("seed", range(1000))
def test_random_schedule_equals_solo(seed: int, has_states: bool) -> None:
    source = random.Random(seed)
    num_blocks, block_size = source.randint(2, 14), source.choice([1, 2, 4])
    max_running = source.randint(1, 6)
    max_step_tokens = max_running + source.randint(0, 12)
    scheduler, runner = make_scheduler(
        num_blocks=num_blocks,
        block_size=block_size,
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        target_seconds=source.choice([None, 0.0, 1.0, 3.0]),
        states=random_states(source, block_size=block_size, num_own=1) if has_states else None,
    )
    if source.random() < 0.3:
        runner.failing = frozenset(source.sample(range(60), 5))
    driver = Driver(scheduler, runner, seconds=lambda plan: source.expovariate(1.0))
    requests, cancelled = run_random_schedule(source, driver, num_blocks * block_size)
    assert runner.largest_step <= max_step_tokens
    for request_id, request in requests.items():
        is_cut = request_id in cancelled or driver.finished[request_id] == "failed"
        assert_as_alone(driver, request, is_whole=not is_cut)


@pytest.mark.parametrize("has_states", [False, True])
@pytest.mark.parametrize("seed", range(1000))
def test_planning_ahead_changes_no_answer(seed: int, has_states: bool) -> None:
    """Random schedules again, each plan made while the one before is open whenever that is possible
    (or, for some seeds, now and then). Steps fail, tokens are late, logits are not finite."""
    source = random.Random(seed)
    num_blocks, block_size = source.randint(2, 14), source.choice([1, 2, 4])
    max_running = source.randint(1, 6)
    late, broken, pauses = (source.choice([0.0, 0.0, rate]) for rate in (0.2, 0.02, 0.3))
    num_failing = 5 if source.random() < 0.2 else 0
    parts = ("launch", "draw", "finish")
    failing = {index: source.choice(parts) for index in source.sample(range(60), num_failing)}
    scheduler, _ = make_scheduler(
        num_blocks=num_blocks,
        block_size=block_size,
        max_running=max_running,
        max_step_tokens=max_running + source.randint(0, 12),
        states=random_states(source, block_size=block_size, num_own=2) if has_states else None,
    )
    runner = LaunchingFake(
        fake_info(num_blocks=num_blocks, block_size=block_size),
        failing=failing,
        is_late=lambda: source.random() < late,
        is_broken=lambda: source.random() < broken,
    )
    driver = Driver(scheduler, runner, plans_ahead=lambda: source.random() >= pauses)
    requests, cancelled = run_random_schedule(source, driver, num_blocks * block_size)
    assert not runner.nan_slots, "what is not finite was left in free blocks"
    for request_id, request in requests.items():
        how = driver.finished.get(request_id)
        assert (how is None) == (request_id in cancelled)
        assert how != "nan_logits" or request_id in runner.planted
        assert how != "failed" or failing
        assert_as_alone(driver, request, is_whole=how in ("stop", "length"))


def test_random_schedules_reach_every_corner() -> None:
    """The random test is only worth something if preemption and prefix hits happen in it."""
    preemptions = hits = 0
    for seed in range(100):
        source = random.Random(seed)
        scheduler, runner = make_scheduler(num_blocks=8, block_size=2, max_running=4)
        driver = Driver(scheduler, runner)
        for request_id in range(8):
            scheduler.add(random_request(source, request_id, 16))
        driver.run()
        preemptions += scheduler.statistics().num_preemptions
        hits += any(
            chunk.start > 0 and len(chunk.tokens) > 1 for p in driver.plans for chunk in p.chunks
        )
    assert preemptions > 20
    assert hits > 20


def test_decode_runs_in_every_step_while_a_long_prompt_is_computed() -> None:
    scheduler, runner = make_scheduler(num_blocks=200, max_step_tokens=16)
    driver = Driver(scheduler, runner)
    scheduler.add(make_request(1, (1,), max_tokens=60))
    driver.step()
    scheduler.add(make_request(2, (2,) * 400, max_tokens=2))
    while 2 not in driver.finished:
        before = len(driver.answers[1])
        driver.step()
        if 1 not in driver.finished:
            assert len(driver.answers[1]) == before + 1
    prompt_steps = [p for p in driver.plans if any(len(c.tokens) > 1 for c in p.chunks)]
    assert len(prompt_steps) >= 400 // 16
    assert all(plan.num_tokens <= 16 for plan in driver.plans)


def test_priority_goes_first_then_arrival() -> None:
    scheduler, runner = make_scheduler(max_running=1)
    driver = Driver(scheduler, runner)
    for request_id, priority in ((1, 0), (2, 1), (3, 0), (4, -1)):
        scheduler.add(make_request(request_id, (request_id,), max_tokens=1, priority=priority))
    driver.run()
    assert list(driver.finished) == [4, 1, 3, 2]


def test_preempted_sequence_is_the_worst_rank() -> None:
    scheduler, runner = make_scheduler(num_blocks=4, block_size=2, max_running=2)
    driver = Driver(scheduler, runner)
    first, second = make_request(1, (1, 2), max_tokens=6), make_request(2, (3, 4), max_tokens=6)
    scheduler.add(first)
    scheduler.add(second)
    driver.run()
    assert scheduler.statistics().num_preemptions >= 1
    assert list(driver.finished) == [1, 2]
    assert driver.answers == {1: alone(first), 2: alone(second)}


def test_what_a_preempted_request_finds_again_is_not_cached_for_the_client() -> None:
    scheduler, runner = make_scheduler(num_blocks=9, block_size=2, max_running=2)
    driver = Driver(scheduler, runner)
    scheduler.add(make_request(1, (1, 2), max_tokens=14))
    scheduler.add(make_request(2, (3, 4, 5, 6, 7, 8), max_tokens=10))
    driver.run()
    again = [c for p in driver.plans for c in p.chunks if c.request_id == 2 and len(c.tokens) > 1]
    assert again[-1].start > 0, "the test is only worth something if it found its own blocks"
    assert driver.num_cached == {1: 0, 2: 0}


def test_small_requests_overtake_a_big_one_but_not_for_ever() -> None:
    """Small ones of staggered lengths never let the pool run empty, which the big one needs."""
    scheduler, runner = make_scheduler(num_blocks=8, block_size=2, max_running=2)
    driver = Driver(scheduler, runner)
    big, num_small = 1000, 6 * MAX_OVERTAKEN

    def add_small(request_id: int) -> None:
        scheduler.add(
            make_request(request_id, (request_id % 40,), max_tokens=4 + 3 * (request_id % 2))
        )

    for request_id in range(2):
        add_small(request_id)
    driver.step()
    scheduler.add(make_request(big, (8,) * 14, max_tokens=2))
    for request_id in range(2, num_small):
        add_small(request_id)
    driver.run()
    order = list(driver.finished)
    assert order.index(big) > 3, "nobody overtook"
    assert order.index(big) <= MAX_OVERTAKEN + 8, "the big one waited out of bounds"


def test_second_turn_computes_only_its_new_tokens() -> None:
    scheduler, runner = make_scheduler(num_blocks=100, block_size=4)
    driver = Driver(scheduler, runner)
    first = make_request(1, tuple(range(1, 31)), max_tokens=10)
    scheduler.add(first)
    driver.run()
    new = (41, 42, 43)
    second = make_request(4, first.prompt + tuple(driver.answers[1]) + new, max_tokens=4)
    scheduler.add(second)
    plan = scheduler.plan()
    assert plan is not None
    assert len(plan.chunks[0].tokens) <= len(new) + 4 + 1, "more than the new tokens and one block"
    events = scheduler.commit(plan, runner.step(plan))
    assert events[0].num_cached == plan.chunks[0].start > 30
    driver.answers[4] += events[0].token_ids
    driver.run()
    assert driver.answers[4] == alone(second)


def test_salt_separates_cached_prefixes() -> None:
    scheduler, runner = make_scheduler()
    driver = Driver(scheduler, runner)
    prompt = tuple(range(1, 14))
    scheduler.add(make_request(1, prompt, max_tokens=1, cache_salt="a"))
    driver.run()
    for request_id, salt, is_hit in ((2, "b", False), (3, "a", True)):
        scheduler.add(make_request(request_id, prompt, max_tokens=1, cache_salt=salt))
        plan = scheduler.plan()
        assert plan is not None
        assert (plan.chunks[0].start > 0) == is_hit
        scheduler.commit(plan, runner.step(plan))


def test_cancel_frees_blocks_before_the_next_plan() -> None:
    scheduler, runner = make_scheduler()
    driver = Driver(scheduler, runner)
    for request_id in (1, 2):
        scheduler.add(make_request(request_id, (request_id,) * 10, max_tokens=30))
    driver.step()
    used = scheduler.statistics().num_blocks_used
    assert scheduler.cancel(1)
    assert not scheduler.cancel(1)
    scheduler.check()
    assert scheduler.statistics().num_blocks_used < used
    driver.run()
    driver.assert_clean()
    assert len(driver.answers[1]) == 1


def test_request_that_can_never_fit_is_known_at_the_door() -> None:
    scheduler, _ = make_scheduler(num_blocks=4, block_size=4)
    assert scheduler.fits(make_request(1, (1,) * 10, max_tokens=7))
    assert not scheduler.fits(make_request(1, (1,) * 10, max_tokens=8))


def test_suspect_blocks_are_forgotten_unless_somebody_holds_them() -> None:
    scheduler, runner = make_scheduler(block_size=4)
    driver = Driver(scheduler, runner)
    shared = tuple(range(1, 9))
    scheduler.add(make_request(1, (*shared, 20, 21, 22, 23, 24), max_tokens=30))
    driver.step()
    scheduler.add(make_request(2, (*shared, 30, 31, 32, 33, 34), max_tokens=30))
    driver.step()
    tables = {c.request_id: list(c.block_table) for c in driver.plans[-1].chunks}
    plan = scheduler.plan()
    assert plan is not None
    assert [
        failure.request_id
        for failure in scheduler.fail([2, 77], code=FailureCode.STEP_FAILED, message="")
    ] == [2]
    assert scheduler.take_unclean() == []
    tokens = [INVALID_TOKEN if chunk.request_id == 2 else 5 for chunk in plan.chunks]
    scheduler.commit(plan, StepOutput(tokens))
    assert set(scheduler.take_unclean()) == set(tables[2]) - set(tables[1])
    assert scheduler.take_unclean() == []
    scheduler.check()
    scheduler.add(make_request(3, (*shared, 30, 31, 32, 33, 34), max_tokens=1))
    plan = scheduler.plan()
    assert plan is not None
    assert plan.chunks[-1].start == len(shared), "found a block that was to be forgotten"


def test_answers_to_one_prompt_share_its_blocks() -> None:
    scheduler, runner = make_scheduler(num_blocks=40, block_size=4, max_step_tokens=8)
    driver = Driver(scheduler, runner)
    prompt = tuple(range(1, 23))
    requests = [make_request(1, prompt, max_tokens=12)]
    requests += [make_request(i, prompt, max_tokens=12, follows=1) for i in (2, 3, 4)]
    for request in requests:
        scheduler.add(request)
    while not driver.answers[1]:
        driver.step()
        assert {chunk.request_id for chunk in driver.plans[-1].chunks} == {1}
    driver.step()
    tables = {chunk.request_id: chunk.block_table for chunk in driver.plans[-1].chunks}
    while len(tables) < 4:
        driver.step()
        tables |= {chunk.request_id: chunk.block_table for chunk in driver.plans[-1].chunks}
    num_full = len(prompt) // 4
    assert all(table[:num_full] == tables[1][:num_full] for table in tables.values())
    assert scheduler.statistics().num_blocks_used <= num_full + 4 * 3
    driver.run()
    assert [driver.answers[request.id] for request in requests] == list(map(alone, requests))


def test_follower_of_a_request_that_is_gone_runs_by_itself() -> None:
    scheduler, runner = make_scheduler(max_running=2, max_step_tokens=4)
    driver = Driver(scheduler, runner)
    scheduler.add(make_request(1, (1, 2, 3, 4, 5, 6), max_tokens=3))
    follower = make_request(2, (1, 2, 3, 4, 5, 6), max_tokens=3, follows=1)
    scheduler.add(follower)
    driver.step()
    scheduler.cancel(1)
    driver.run()
    assert driver.answers[2] == alone(follower)


def test_only_those_who_never_ran_fail_in_the_queue() -> None:
    scheduler, runner = make_scheduler(max_running=1)
    driver = Driver(scheduler, runner)
    for request_id in (1, 2, 3):
        scheduler.add(make_request(request_id, (request_id, 5), max_tokens=4))
    driver.step()
    failures = scheduler.fail_queued([1, 2, 99], code=FailureCode.QUEUED_TOO_LONG, message="late")
    assert [(f.request_id, f.code) for f in failures] == [(2, "overloaded")]
    scheduler.check()
    driver.run()
    assert set(driver.finished) == {1, 3}


def test_preempted_request_is_not_queued() -> None:
    """It has run; a limit on waiting for the first turn is not for it."""
    scheduler, runner = make_scheduler(num_blocks=5, block_size=2, max_running=2)
    driver = Driver(scheduler, runner)
    for request_id in (1, 2):
        scheduler.add(make_request(request_id, (request_id,) * 3, max_tokens=7))
    while not scheduler.statistics().num_preemptions:
        driver.step()
    assert scheduler.statistics().num_waiting == 1
    assert scheduler.fail_queued([1, 2], code=FailureCode.QUEUED_TOO_LONG, message="late") == []
    driver.run()
    assert set(driver.finished) == {1, 2}


def test_step_that_preempts_admits_nobody() -> None:
    """Else the victim would take its blocks back at once, only to lose them again."""
    scheduler, runner = make_scheduler(num_blocks=8, block_size=2, max_running=3)
    driver = Driver(scheduler, runner)
    for request_id in range(1, 6):
        scheduler.add(make_request(request_id, (request_id,) * 3, max_tokens=9))
    num_preemptions = num_seen = 0
    computed: set[int] = set()
    while driver.step():
        before, computed = computed, {chunk.request_id for chunk in driver.plans[-1].chunks}
        num_seen, num_preemptions = num_preemptions, scheduler.statistics().num_preemptions
        assert num_preemptions == num_seen or computed <= before
    assert num_preemptions > 2


def test_what_will_certainly_end_is_not_planned_ahead() -> None:
    scheduler, runner = make_scheduler()
    scheduler.add(make_request(1, (1,) * 5, max_tokens=2))
    scheduler.add(make_request(2, (2,) * 5, max_tokens=9))
    first = scheduler.plan()
    second = scheduler.plan()
    assert first is not None
    assert second is not None
    assert [chunk.tokens for chunk in second.chunks] == [(UNKNOWN_TOKEN,), (UNKNOWN_TOKEN,)]
    scheduler.commit(first, runner.step(first))
    third = scheduler.plan()
    assert third is not None
    assert [chunk.request_id for chunk in third.chunks] == [2]
    scheduler.check()


def test_nobody_is_preempted_for_a_plan_made_ahead() -> None:
    scheduler, runner = make_scheduler(num_blocks=5, block_size=4)
    for request_id in (1, 2):
        scheduler.add(make_request(request_id, (request_id,) * 7, max_tokens=8))
    driver = Driver(scheduler, runner)
    driver.step()
    plan = scheduler.plan()
    assert plan is not None
    assert scheduler.plan() is None, "both need a block, there is one"
    scheduler.check()
    scheduler.commit(plan, runner.step(plan))
    assert scheduler.statistics().num_preemptions == 0
    assert scheduler.plan() is not None
    assert scheduler.statistics().num_preemptions == 1


def test_blocks_of_a_cancelled_request_are_free_when_its_open_plans_have_ended() -> None:
    scheduler, _ = make_scheduler(block_size=4)
    scheduler.add(make_request(1, (1,) * 10, max_tokens=30))
    scheduler.add(make_request(2, (2,) * 10, max_tokens=30))
    first, second = scheduler.plan(), scheduler.plan()
    assert first is not None
    assert second is not None
    assert scheduler.cancel(1)
    for plan, num_used in ((first, 6), (second, 3)):
        assert scheduler.statistics().num_blocks_used == 6
        assert not scheduler.is_wanted(1)
        events = scheduler.commit(plan, StepOutput([5, 5]))
        assert [event.request_id for event in events] == [2]
        assert scheduler.statistics().num_blocks_used == num_used
        scheduler.check()
    assert not scheduler.cancel(1)
