"""Random schedules of a real model with every sampling option: each request as if it were alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

import pytest

from millstream.core.blocks import BlockPool
from millstream.core.guesses import Guesses
from millstream.core.plan import Plan, StepOutput
from millstream.core.request import Request, SamplingParams, TokenLogprob
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.model.runner import DrawnStep, LaunchedStep, ModelRunner
from millstream.model.sampling import filters
from tests.core.test_scheduler import Driver
from tests.model.architectures import VOCAB, make_model
from tests.model.test_architectures import make_runner
from tests.oracle import FreeRows, Oracle

T = TypeVar("T")
Alone = Callable[[Request], Driver]

BLOCK_SIZE = 8
STATE_SLOTS = 12


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    folder = tmp_path_factory.mktemp("llama-2")
    make_model("llama", folder, num_hidden_layers=2)
    return make_runner(folder, block_size=BLOCK_SIZE)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    """A model whose layers keep states in turns with layers that attend."""
    folder = tmp_path_factory.mktemp("qwen3-next")
    make_model("qwen3_next", folder, num_hidden_layers=4)
    return make_runner(folder, block_size=BLOCK_SIZE)


@pytest.fixture(scope="module")
def hybrid_alone(hybrid: ModelRunner) -> Alone:
    return cache(partial(run_alone, hybrid))


@pytest.fixture(scope="module")
def alone(runner: ModelRunner) -> Alone:
    """What a request gets alone, computed once: the schedules of a seed have the same requests."""
    return cache(partial(run_alone, runner))


class Failing:
    """The runner, except that some of its steps fail, after the model has computed them or before
    their tokens are known."""

    def __init__(self, runner: ModelRunner, fails: Callable[[], bool]) -> None:
        self._runner = runner
        self._fails = fails
        self.plans_ahead = True
        self.num_late = 0
        self.info, self.scrub = runner.info, runner.scrub

    def launch(self, plan: Plan, after: DrawnStep | None = None) -> LaunchedStep:
        return self._or_fail(self._runner.launch(plan, after))

    def draw(self, launched: LaunchedStep, *, is_wanted: Callable[[int], bool]) -> DrawnStep:
        return self._or_fail(self._runner.draw(launched, is_wanted=is_wanted))

    def finish(self, sampling: DrawnStep) -> StepOutput:
        output = self._or_fail(self._runner.finish(sampling))
        self.num_late += len(output.late)
        return output

    def step(self, plan: Plan) -> StepOutput:
        return self.finish(self.draw(self.launch(plan), is_wanted=lambda _: True))

    def _or_fail(self, result: T) -> T:
        if self._fails():
            raise RuntimeError("planted failure")
        return result


def random_sampling(source: random.Random, seed: int) -> SamplingParams:
    """Each option is used by a third of the requests, so that most mix several."""

    def sometimes(value: float, neutral: float) -> float:
        return value if source.random() < 0.3 else neutral

    tokens = source.sample(range(1, VOCAB), 40)
    is_rare = source.random() < 0.3
    return SamplingParams(
        temperature=source.choice([0.0, 0.7, 1.0, 1.4]),
        top_k=int(sometimes(20, 0)),
        top_p=sometimes(0.9, 1.0),
        min_p=sometimes(0.05, 0.0),
        typical_p=sometimes(0.8, 1.0),
        repetition_penalty=sometimes(1.3, 1.0),
        frequency_penalty=sometimes(0.7, 0.0),
        presence_penalty=sometimes(-0.5, 0.0),
        logit_bias=((tokens[0], 2.0), (tokens[1], -100.0)) if is_rare else (),
        bad_words=((tokens[2],), (tokens[3], tokens[4])) if source.random() < 0.3 else (),
        allowed_token_ids=tuple(tokens) if source.random() < 0.2 else (),
        min_tokens=source.choice([0, 0, 3]),
        seed=seed,
        logprobs=source.choice([None, None, 0, 3]),
    )


def random_request(source: random.Random, request_id: int, leader: Request | None) -> Request:
    shared = (5,) * source.choice([0, 8, 17])
    prompt = shared + tuple(source.randrange(1, VOCAB) for _ in range(source.randint(1, 30)))
    return Request(
        id=request_id,
        prompt=prompt if leader is None else leader.prompt,
        sampling=random_sampling(source, request_id),
        max_tokens=source.choice([3, 12, 24]),
        stop_token_ids=tuple(source.sample(range(VOCAB), source.choice([0, 0, 0, 10]))),
        priority=source.choice([0, 0, 1]),
        prompt_logprobs=source.choice([None, None, 2]),
        follows=None if leader is None else leader.id,
    )


def drive(
    runner: ModelRunner | Failing,
    *,
    num_blocks: int,
    max_running: int,
    max_step_tokens: int,
    plans_ahead: Callable[[], bool] = lambda: False,
    durations: random.Random | None = None,
    guesses: Guesses | None = None,
) -> Driver:
    """durations: what steps are said to have taken, and what they are to take."""
    states = None
    if runner.info.num_states:  # two for each, as where steps are planned ahead
        states = StatePool(
            num_slots=STATE_SLOTS, block_size=BLOCK_SIZE, num_own=2, interval=BLOCK_SIZE
        )
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=num_blocks, block_size=BLOCK_SIZE),
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        target_seconds=durations and durations.choice([0.0, 1.0, 3.0]),
        states=states,
        guesses=guesses,
    )
    return Driver(
        scheduler,
        runner,  # type: ignore[arg-type]
        plans_ahead=plans_ahead,
        seconds=lambda plan: durations and durations.expovariate(1.0),
    )


def run_alone(runner: ModelRunner, request: Request) -> Driver:
    driver = drive(runner, num_blocks=40, max_running=1, max_step_tokens=512)
    driver.scheduler.add(request)
    driver.run()
    return driver


def assert_close(actual: list[TokenLogprob], expected: list[TokenLogprob]) -> None:
    """The same tokens; log probabilities up to how products of other row counts round."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert (one.token_id, one.rank) == (other.token_id, other.rank)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-3)


@pytest.mark.parametrize("seed", range(200))
def test_any_schedule_gives_what_each_gets_alone(
    runner: ModelRunner, alone: Alone, seed: int
) -> None:
    run_schedule(runner, alone, seed, plans_ahead=lambda: False)


@pytest.mark.parametrize("seed", range(200))
def test_a_schedule_planned_ahead_gives_what_each_gets_alone(
    runner: ModelRunner, alone: Alone, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        monkeypatch.setattr(filters, "LEADER_COUNTS", (4, 32))
    source = random.Random(seed)
    pauses = source.choice([0.0, 0.0, 0.2])
    failing, driver = run_schedule(
        runner, alone, seed, plans_ahead=lambda: source.random() >= pauses
    )
    assert driver.num_ahead > len(driver.plans) // 4
    assert seed not in (1, 3, 5, 7) or failing.num_late > 0, "no token was late in this schedule"


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_any_schedule_of_a_model_with_states_gives_what_each_gets_alone(
    hybrid: ModelRunner,
    hybrid_alone: Alone,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    plans_ahead: bool,
) -> None:
    """Cancelled and failing neighbours, further answers, preemption, snapshots, tokens too late."""
    if seed % 2:
        monkeypatch.setattr(filters, "LEADER_COUNTS", (4, 32))
    run_schedule(hybrid, hybrid_alone, seed, plans_ahead=lambda: plans_ahead)


@pytest.mark.parametrize("seed", range(50))
def test_guesses_change_nothing(runner: ModelRunner, alone: Alone, seed: int) -> None:
    source = random.Random(seed)
    truth = source.choice([0.5, 0.9, 1.0])
    guesses = guesses_at(lambda request: alone(request).answers[request.id], truth, source)
    _, driver = run_schedule(runner, alone, seed, plans_ahead=lambda: False, guesses=guesses)
    assert seed > 9 or driver.scheduler.statistics().num_accepted_tokens > 0


def guesses_at(
    answer: Callable[[Request], list[int]], truth: float, source: random.Random
) -> Guesses:
    """Guesses that are right as often as `truth` says, in rows that cost nothing."""

    def predictor(request: Request) -> Oracle:
        return Oracle(request, lambda: source.random() < truth, answer=answer(request))

    return Guesses(4, costs=FreeRows(), predictor=predictor)


def run_schedule(
    runner: ModelRunner,
    alone: Alone,
    seed: int,
    *,
    plans_ahead: Callable[[], bool],
    guesses: Guesses | None = None,
) -> tuple[Failing, Driver]:
    source = random.Random(seed)
    requests: list[Request] = []
    for request_id in range(1, source.randint(3, 7)):
        leader = source.choice(requests) if requests and source.random() < 0.2 else None
        requests.append(random_request(source, request_id, leader))
    for request in requests:
        alone(request)  # now, because it uses the same cache
    failure_rate = source.choice([0.0, 0.0, 0.03])
    failing = Failing(runner, lambda: source.random() < failure_rate / 3)
    driver = drive(
        failing,
        num_blocks=source.randint(9, 24),
        max_running=source.randint(1, 5),
        max_step_tokens=source.randint(6, 40),
        plans_ahead=plans_ahead,
        durations=random.Random(seed) if seed % 3 else None,
        guesses=guesses,
    )
    cancelled: set[int] = set()
    for request in requests:
        driver.scheduler.add(request)
        for _ in range(source.choice([0, 1, 4])):
            driver.step()
        if source.random() < 0.1 and driver.scheduler.cancel(request.id):
            cancelled.add(request.id)
    driver.run()
    driver.assert_clean()
    for request in requests:
        reference = alone(request)
        expected, answer = reference.answers[request.id], driver.answers[request.id]
        is_whole = request.id not in cancelled and driver.finished[request.id] != "failed"
        assert answer == (expected if is_whole else expected[: len(answer)])
        assert_close(driver.logprobs[request.id], reference.logprobs[request.id][: len(answer)])
        scores = driver.scores[request.id]
        assert_close(scores, reference.scores[request.id][: len(scores)])
        assert not is_whole or len(scores) == len(reference.scores[request.id])
    return failing, driver


def test_the_schedules_preempt_and_find_prefixes(runner: ModelRunner) -> None:
    """The random test is only worth something if these happen in it."""
    preemptions = hits = 0
    for seed in range(20):
        source = random.Random(seed)
        driver = drive(runner, num_blocks=9, max_running=4, max_step_tokens=24)
        for request_id in range(1, 6):
            driver.scheduler.add(random_request(source, request_id, None))
        driver.run()
        preemptions += driver.scheduler.statistics().num_preemptions
        hits += sum(num_cached > 0 for num_cached in driver.num_cached.values())
    assert preemptions > 5
    assert hits > 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_batch_invariant_runs_report_the_same_bits(
    dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Tokens and log probabilities, of answers and of prompts, through the sampler."""
    folder = tmp_path_factory.mktemp("invariant")
    make_model("llama", folder, num_hidden_layers=2)
    runner = make_runner(folder, block_size=BLOCK_SIZE, batch_invariant=True, dtype=dtype)
    for seed in range(6):
        source = random.Random(seed)
        requests = [random_request(source, request_id, None) for request_id in range(1, 6)]
        answers = {request.id: run_alone(runner, request) for request in requests}
        guesses = guesses_at(lambda r, known=answers: known[r.id].answers[r.id], 0.8, source)  # type: ignore[misc]
        driver = drive(
            runner,
            num_blocks=24,
            max_running=4,
            max_step_tokens=24,
            durations=random.Random(seed),
            guesses=guesses,
        )
        for request in requests:
            driver.scheduler.add(request)
            driver.step()
        driver.run()
        assert driver.scheduler.statistics().num_accepted_tokens > 10
        for request in requests:
            alone = answers[request.id]
            assert driver.answers[request.id] == alone.answers[request.id]
            assert driver.logprobs[request.id] == alone.logprobs[request.id]
            assert driver.scores[request.id] == alone.scores[request.id]
