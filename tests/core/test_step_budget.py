"""Steps that are planned by time: running answers wait so long and no longer, prompts go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from millstream.core.plan import Chunk, Plan
from millstream.core.step_budget import IDLE_TOKENS, PROMPT_SHARE, ROWS_AT_ONCE
from millstream.core.step_costs import Rates, StepCosts, work_of
from tests.core.test_scheduler import Driver, make_scheduler
from tests.fakes import make_request

MACHINE = Rates(step=0.030, decode_row=0.001, decode_key=1e-6, prompt_token=0.0005, prompt_key=4e-7)
"""What steps of the machine in these tests take."""


def seconds_of(plan: Plan) -> float:
    return MACHINE.seconds(work_of(plan.chunks))


def plan_of(*, decoding: int, context: int = 100, prompt: int = 0, start: int = 0) -> Plan:
    """A step of so many sequences that decode, and a part of a prompt."""
    request = make_request(1, (1,))

    def chunk(position: int, length: int, *, is_last: bool) -> Chunk:
        return Chunk(request, (1,) * length, position, [], [], is_last)

    chunks = [chunk(context, 1, is_last=True) for _ in range(decoding)]
    return Plan((*chunks, *([chunk(start, prompt, is_last=False)] if prompt else ())))


def random_plans(seed: int) -> Iterator[Plan]:
    source = random.Random(seed)
    while True:
        prompt = source.choice([0, 0, 0, source.randint(2, 256)])
        decoding = source.randint(0 if prompt else 1, 32)
        context = source.randint(10, 2000)
        yield plan_of(
            decoding=decoding, context=context, prompt=prompt, start=source.choice([0, 512, 3000])
        )


class Server:
    """A scheduler on the machine above, whose clock goes on by what its steps take."""

    def __init__(
        self,
        *,
        target: float | None,
        max_step_tokens: int = 1024,
        seconds: Callable[[Plan], float] = seconds_of,
    ) -> None:
        scheduler, runner = make_scheduler(
            num_blocks=4096,
            block_size=16,
            max_running=32,
            max_step_tokens=max_step_tokens,
            target_seconds=target,
        )
        self.durations: list[float] = []
        self.now = 0.0
        self.driver = Driver(scheduler, runner, seconds=self._pass)
        self._seconds = seconds

    def _pass(self, plan: Plan) -> float:
        self.durations.append(self._seconds(plan))
        self.now += self.durations[-1]
        return self.durations[-1]

    def ask(self, request_id: int, prompt: int, *, answer: int) -> None:
        tokens = tuple(request_id * 7919 + position for position in range(prompt))
        self.driver.scheduler.add(make_request(request_id, tokens, max_tokens=answer))

    def warmed_up(self, *, decoding: int) -> Server:
        """With answers that go on and on, and some steps measured."""
        for request_id in range(decoding):
            self.ask(request_id, 40 + request_id, answer=1500)
        for _ in range(8):
            self.driver.step()
        self.ask(100, 300, answer=2)
        for _ in range(12):
            self.driver.step()
        return self

    def until_answered(self, request_id: int) -> tuple[list[Plan], list[float]]:
        """The steps until its first token, and what they took."""
        first = len(self.driver.plans)
        while not self.driver.answers[request_id]:
            assert self.driver.step()
            assert len(self.driver.plans) < first + 1000, "it starves"
        return self.driver.plans[first:], self.durations[first:]


@pytest.mark.parametrize("seed", range(8))
def test_what_steps_take_is_learned(seed: int) -> None:
    costs, plans, source = StepCosts(), random_plans(seed), random.Random(seed)
    assert costs.rates is None
    for _ in range(400):
        plan = next(plans)
        costs.observe(plan, seconds_of(plan) * source.uniform(0.9, 1.1))
    rates = costs.rates
    assert rates is not None
    for _ in range(100):
        plan = next(plans)
        assert rates.seconds(work_of(plan.chunks)) == pytest.approx(seconds_of(plan), rel=0.15)


def test_steps_that_were_held_up_count_little() -> None:
    costs, plans = StepCosts(), random_plans(1)
    for number in range(400):
        plan = next(plans)
        costs.observe(plan, seconds_of(plan) * (30 if number % 10 == 0 else 1))
    plan = plan_of(decoding=8, prompt=128)
    rates = costs.rates
    assert rates is not None
    assert rates.seconds(work_of(plan.chunks)) == pytest.approx(seconds_of(plan), rel=0.15)


def test_what_prompts_take_is_known_after_hours_of_decoding() -> None:
    costs, plans = StepCosts(), random_plans(2)
    for _ in range(200):
        plan = next(plans)
        costs.observe(plan, seconds_of(plan))
    alone = plan_of(decoding=4)
    for _ in range(10_000):
        costs.observe(alone, seconds_of(alone))
    rates = costs.rates
    assert rates is not None
    assert rates.prompt_token == pytest.approx(MACHINE.prompt_token, rel=0.1)


def test_a_machine_that_becomes_slower_is_learned_anew() -> None:
    costs, plans = StepCosts(), random_plans(3)
    for number in range(2000):
        plan = next(plans)
        costs.observe(plan, seconds_of(plan) * (1 if number < 1000 else 4))
    plan = plan_of(decoding=8, prompt=128)
    rates = costs.rates
    assert rates is not None
    assert rates.seconds(work_of(plan.chunks)) == pytest.approx(4 * seconds_of(plan), rel=0.1)


@pytest.mark.parametrize("start", [0, 100, 5000])
def test_tokens_that_fit_take_the_time_there_is(start: int) -> None:
    for rates in (MACHINE, MACHINE._replace(prompt_key=0.0)):
        tokens = rates.prompt_tokens_in(0.2, start=start)
        for length, fits in ((tokens, True), (tokens + 2, False)):
            keys = length * start + length * length / 2
            taken = length * rates.prompt_token + keys * rates.prompt_key
            assert (taken <= 0.2) == fits
    assert MACHINE.prompt_tokens_in(0.0, start=start) == 0
    assert Rates().prompt_tokens_in(1.0, start=start) > 10**6


@pytest.mark.parametrize("target", [0.0, 0.06, 0.1, 0.2])
@pytest.mark.parametrize("decoding", [1, 8, 30])
def test_running_answers_wait_as_long_as_the_target_says(target: float, decoding: int) -> None:
    server = Server(target=target).warmed_up(decoding=decoding)
    server.ask(101, 4000, answer=2)
    plans, durations = server.until_answered(101)
    assert len(plans) > 3
    for plan, seconds in zip(plans, durations, strict=True):
        alone = seconds_of(Plan(plan.chunks[:decoding]))
        assert plan.num_sampled >= decoding, "who runs gets a token in each step"
        limit = max(target, (1 + PROMPT_SHARE) * alone)
        assert seconds <= 1.05 * limit
        if plan is not plans[-1]:
            rounded = ROWS_AT_ONCE * MACHINE.prompt_token
            assert seconds >= 0.95 * limit - rounded, "what is left of the time is for prompts"
            assert not plan.num_tokens % ROWS_AT_ONCE or plan.num_tokens < 8 * ROWS_AT_ONCE + 31


def test_prompts_get_twice_the_time_of_answers_at_least() -> None:
    server = Server(target=0.0).warmed_up(decoding=31)
    server.ask(101, 2000, answer=2)
    plans, durations = server.until_answered(101)
    alone = sum(seconds_of(Plan(plan.chunks[:31])) for plan in plans[:-1])
    assert sum(durations[:-1]) - alone >= 0.95 * 2 * alone


def test_several_prompts_share_a_step_in_their_order() -> None:
    server = Server(target=0.2).warmed_up(decoding=8)
    for request_id in (101, 102, 103, 104):
        server.ask(request_id, 100, answer=40)
    plans, _ = server.until_answered(104)
    begun = [chunk.request_id for plan in plans for chunk in plan.chunks if len(chunk.tokens) > 1]
    assert begun == sorted(begun)
    assert len(plans) == 2


def test_all_tokens_of_a_step_are_for_prompts_while_nothing_decodes() -> None:
    server = Server(target=0.0)
    for request_id in (1, 2):  # while nothing is known of what steps take, and later
        server.ask(request_id, 3000, answer=4)
        plans, _ = server.until_answered(request_id)
        assert {plan.num_tokens for plan in plans[:-1]} == {IDLE_TOKENS}
        server.driver.run()
    server = Server(target=1.0)
    server.ask(1, 300, answer=4)
    server.driver.run()
    server.ask(2, 3000, answer=2)
    plans, durations = server.until_answered(2)
    assert len(plans) < 8
    assert max(durations) < 1.2


@pytest.mark.parametrize("target", [None, 1000.0])
def test_no_step_has_more_tokens_than_it_may(target: float | None) -> None:
    server = Server(target=target, max_step_tokens=200).warmed_up(decoding=8)
    server.ask(101, 2000, answer=2)
    plans, _ = server.until_answered(101)
    assert {plan.num_tokens for plan in plans[:-1]} == {200}


def test_a_target_shortens_gaps_and_costs_a_prompt_little() -> None:
    found = {}
    for target in (None, 0.1):
        server = Server(target=target).warmed_up(decoding=8)
        began = server.now
        server.ask(101, 3000, answer=2)
        _, durations = server.until_answered(101)
        found[target] = (max(durations), server.now - began)
    (gap, wait), (bounded_gap, bounded_wait) = found[None], found[0.1]
    assert bounded_gap < 0.3 * gap
    assert bounded_wait < 2 * wait


@pytest.mark.parametrize("seed", range(20))
def test_no_target_and_no_duration_starves_anybody(seed: int) -> None:
    source = random.Random(seed)
    server = Server(
        target=source.choice([0.0, 0.05]), seconds=lambda plan: source.lognormvariate(-3, 2)
    ).warmed_up(decoding=8)
    server.ask(101, 500, answer=3)
    plans, _ = server.until_answered(101)
    assert len(plans) <= 500
