"""Every architecture answers as transformers' generate does: greedy, float32, batched and paged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from millstream.core.blocks import BlockPool
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.model.runner import ModelRunner, build_runner
from millstream.settings import Settings
from tests.model.architectures import ARCHITECTURES, VOCAB, greedy, make_model


def make_runner(folder: Path, **options: object) -> ModelRunner:
    settings = Settings(model_id=str(folder), max_concurrent_requests=8, **options)  # type: ignore[arg-type]
    return build_runner(folder, settings)()


def answers(
    runner: ModelRunner, requests: list[Request], *, max_step_tokens: int, num_blocks: int = 0
) -> dict[int, list[int]]:
    """Runs all requests together and checks the scheduler after every step."""
    info = runner.info
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=num_blocks or info.num_blocks, block_size=info.block_size),
        max_running=8,
        max_step_tokens=max_step_tokens,
    )
    for request in requests:
        assert scheduler.fits(request)
        scheduler.add(request)
    result: dict[int, list[int]] = {request.id: [] for request in requests}
    while (plan := scheduler.plan()) is not None:
        for event in scheduler.commit(plan, runner.step(plan)):
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


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "mistral"])
def test_equals_generate_under_preemption_and_prefix_hits(model_type: str, tmp_path: Path) -> None:
    model = make_model(model_type, tmp_path)
    shared = random_prompts(1, seed=5)[0][:40] + (7,) * 8
    prompts = [shared + prompt for prompt in random_prompts(6, seed=6, longest=20)]
    expected = {index: greedy(model, prompt, 40) for index, prompt in enumerate(prompts)}
    runner = make_runner(tmp_path, block_size=8)
    requests = [greedy_request(index, prompt, 40) for index, prompt in enumerate(prompts)]
    assert answers(runner, requests, max_step_tokens=24, num_blocks=22) == expected
