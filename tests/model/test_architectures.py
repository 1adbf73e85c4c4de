"""Every architecture answers as transformers' generate does: greedy, float32, batched and paged."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from millstream.core.blocks import BlockPool
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.model.build import runner_factory
from millstream.model.runner import ModelRunner
from millstream.settings import Settings
from tests.model.architectures import ARCHITECTURES, VOCAB, greedy, is_decided, make_model
from tests.model.steps import run_step


def make_runner(folder: Path, **options: object) -> ModelRunner:
    settings = Settings(model_id=str(folder), max_concurrent_requests=8, **options)  # type: ignore[arg-type]
    return runner_factory(folder, settings)()


def answers(
    runner: ModelRunner, requests: list[Request], *, max_step_tokens: int, num_blocks: int = 0
) -> dict[int, list[int]]:
    """Runs all requests together and checks the scheduler after every step."""
    info = runner.info
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=num_blocks or info.num_blocks, block_size=info.block_size),
        max_running=8,
        max_step_tokens=max_step_tokens,
        states=StatePool.of(info),
    )
    for request in requests:
        assert scheduler.fits(request)
        scheduler.add(request)
    result: dict[int, list[int]] = {request.id: [] for request in requests}
    while (plan := scheduler.plan()) is not None:
        for event in scheduler.commit(plan, run_step(runner, plan)):
            result[event.request_id] += event.token_ids
        scheduler.check()
    return result


def random_prompts(count: int, *, seed: int, longest: int = 70) -> list[tuple[int, ...]]:
    source = random.Random(seed)
    return [
        tuple(source.randrange(1, VOCAB) for _ in range(source.randint(3, longest)))
        for _ in range(count)
    ]


def greedy_request(request_id: int, prompt: tuple[int, ...], max_tokens: int) -> Request:
    sampling = SamplingParams(temperature=0.0)
    return Request(id=request_id, prompt=prompt, sampling=sampling, max_tokens=max_tokens)


def decided_answers(
    model: PreTrainedModel, candidates: list[tuple[int, ...]]
) -> dict[tuple[int, ...], list[int]]:
    """The first six prompts to which 40 tokens of greedy answer do not hang on how a processor
    rounds, with their answers. Greedy, a shorter answer is the beginning of a longer one."""
    answered = ((prompt, greedy(model, prompt, 40)) for prompt in candidates)
    decided = dict(islice((each for each in answered if is_decided(model, *each)), 6))
    assert len(decided) == 6
    return decided


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_equals_generate(model_type: str, tmp_path: Path) -> None:
    model = make_model(model_type, tmp_path)
    prompts = random_prompts(6, seed=1)
    expected = {index: greedy(model, prompt, 24) for index, prompt in enumerate(prompts)}
    assert len({tuple(answer) for answer in expected.values()}) == 6, "degenerate model"
    runner = make_runner(tmp_path)
    requests = [greedy_request(index, prompt, 24) for index, prompt in enumerate(prompts)]
    # A budget below the prompts' lengths, so that they are computed in chunks beside decodes.
    assert answers(runner, requests, max_step_tokens=32) == expected


@pytest.mark.parametrize(
    "model_type", ["llama", "gemma2", "mistral", "deepseek_v2", "gpt_oss", "llama4_text"]
)
def test_equals_generate_under_preemption_and_prefix_hits(model_type: str, tmp_path: Path) -> None:
    model = make_model(model_type, tmp_path)
    shared = random_prompts(1, seed=5)[0][:40] + (7,) * 8
    random_ends = random_prompts(12, seed=6, longest=20)
    decided = decided_answers(model, [shared + end for end in random_ends])
    expected = dict(enumerate(decided.values()))
    runner = make_runner(tmp_path, block_size=8)
    requests = [greedy_request(index, prompt, 40) for index, prompt in enumerate(decided)]
    assert answers(runner, requests, max_step_tokens=24, num_blocks=22) == expected


@pytest.mark.parametrize(
    ("model_type", "seed"),
    [
        *(("llama", 0), ("llama", 1), ("llama", 2)),
        *(("gemma2", 0), ("deepseek_v2", 1), ("gpt_oss", 2), ("phimoe", 0), ("llama4_text", 1)),
    ],
)
def test_equals_generate_in_any_schedule(model_type: str, seed: int, tmp_path: Path) -> None:
    """Random arrivals, budgets and block counts; prompts that share their beginning."""
    model, source = make_model(model_type, tmp_path), random.Random(seed)
    shared = random_prompts(1, seed=seed)[0][:24] * 2
    random_ends = random_prompts(12, seed=10 + seed, longest=30)
    decided = decided_answers(model, [shared[:40] + end for end in random_ends])
    lengths = [source.randint(8, 40) for _ in decided]
    runner = make_runner(tmp_path, block_size=8)
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=source.randint(17, 22), block_size=8),
        max_running=8,
        max_step_tokens=source.randint(8, 40),
    )
    waiting = [
        greedy_request(i, p, n) for i, (p, n) in enumerate(zip(decided, lengths, strict=True))
    ]
    result: dict[int, list[int]] = {request.id: [] for request in waiting}
    cached = 0
    while True:
        while waiting and source.random() < 0.3:
            scheduler.add(waiting.pop())
        plan = scheduler.plan()
        if plan is not None:
            for event in scheduler.commit(plan, run_step(runner, plan)):
                result[event.request_id] += event.token_ids
                cached = max(cached, event.num_cached)
        elif not waiting:
            break
        scheduler.check()
    assert result == {
        i: answer[:n] for i, (answer, n) in enumerate(zip(decided.values(), lengths, strict=True))
    }
    assert scheduler.statistics().num_preemptions > 0
    assert cached > 0
