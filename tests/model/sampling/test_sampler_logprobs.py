"""Log probabilities: of drawn tokens, and of prompts scored in chunks beside other requests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from millstream.core.blocks import BlockPool
from millstream.core.request import Request, SamplingParams, TokenLogprob
from millstream.core.scheduler import Scheduler
from millstream.model.runner import ModelRunner
from millstream.model.sampling import filters
from millstream.model.sampling.logprobs import Asked, token_logprobs
from tests.model.architectures import VOCAB, make_model
from tests.model.sampling_cases import random_logits
from tests.model.steps import run_step
from tests.model.test_architectures import make_runner, random_prompts


def expected_logprob(logits: torch.Tensor, token: int, num_top: int) -> TokenLogprob:
    """The definition, by Python's sort."""
    logs = logits.float().log_softmax(dim=-1).tolist()
    values = logits.float().tolist()
    order = sorted(range(len(logs)), key=lambda i: (-values[i], i))
    top = tuple((i, logs[i]) for i in order[:num_top])
    return TokenLogprob(token, logs[token], order.index(token) + 1, top)


@pytest.mark.parametrize("looks", [(4, 30), ()], ids=["short", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_coarse", [True, False])
def test_equals_the_definition(
    looks: tuple[int, ...], dtype: torch.dtype, is_coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "LEADER_COUNTS", looks)
    logits = random_logits(60, 500)
    logits = (logits.round() if is_coarse else logits).to(dtype)
    asked = [Asked(row, (row * 37) % 500, (0, 1, 3, 20, 500, 600)[row % 6]) for row in range(60)]
    asked.append(Asked(4, int(logits[4].argmax()), 2))
    found = token_logprobs(logits, asked)
    assert found == [expected_logprob(logits[row], token, top) for row, token, top in asked]
    assert found[-1].rank == 1
    assert token_logprobs(logits, []) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    make_model("llama", folder)
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> ModelRunner:
    return make_runner(folder, block_size=8)


@pytest.mark.parametrize(("budget", "num_blocks"), [(300, 100), (16, 100), (24, 13)])
def test_scored_prompts_beside_others_equal_the_model(
    folder: Path, runner: ModelRunner, budget: int, num_blocks: int
) -> None:
    """In one chunk, in many, and preempted; every second request is scored and reports tokens."""
    model = make_model("llama", folder)
    requests = [
        Request(
            id=index,
            prompt=prompt,
            sampling=SamplingParams(
                temperature=0.0, logprobs=3 if index % 2 else None, repetition_penalty=1.3
            ),
            max_tokens=12,
            prompt_logprobs=(0, 4)[index // 2 % 2] if index % 2 else None,
        )
        for index, prompt in enumerate(random_prompts(6, seed=8))
    ]
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=num_blocks, block_size=8), max_running=8, max_step_tokens=budget
    )
    for request in requests:
        scheduler.add(request)
    answers: dict[int, list[int]] = {request.id: [] for request in requests}
    found: dict[int, list[TokenLogprob]] = {request.id: [] for request in requests}
    num_logits = num_tokens = 0
    while (plan := scheduler.plan()) is not None:
        num_logits += len(runner.logits(plan))
        num_tokens += plan.num_sampled + sum(len(chunk.scored) for chunk in plan.chunks)
        for event in scheduler.commit(plan, run_step(runner, plan)):
            answers[event.request_id] += event.token_ids
            found[event.request_id] += event.prompt_logprobs + event.logprobs
        scheduler.check()
    assert num_logits == num_tokens, "logits of rows that nobody asked for"
    for request in requests:
        assert len(answers[request.id]) == 12
        if request.prompt_logprobs is None:
            assert found[request.id] == []
            continue
        known = [*request.prompt, *answers[request.id]]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([known])).logits[0]
        assert logits.shape[1] == VOCAB
        assert [item.token_id for item in found[request.id]] == known[1:]
        for position, item in enumerate(found[request.id]):
            is_prompt = position < len(request.prompt) - 1
            num_top = request.prompt_logprobs if is_prompt else 3
            expected = expected_logprob(logits[position], known[position + 1], num_top)
            assert item.logprob == pytest.approx(expected.logprob, abs=1e-3)
            assert item.rank == expected.rank
            assert [token for token, _ in item.top] == [token for token, _ in expected.top]
