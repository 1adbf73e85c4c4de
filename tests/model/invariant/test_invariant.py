"""--batch-invariant: the same bits for a request whatever runs beside it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.core.blocks import BlockPool
from millstream.core.plan import StepOutput
from millstream.core.request import Request
from millstream.core.scheduler import Scheduler
from millstream.errors import StartupError
from millstream.model.build import build_runner
from millstream.model.invariant import attention_tiles
from millstream.model.loading.model import load_model
from millstream.model.paging.gathered import GatheredBackend
from millstream.model.runner import ModelRunner
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.test_architectures import greedy_request, make_runner, random_prompts

Rows = dict[int, list[Tensor]]
"""The logits each request was answered from, token by token."""

CASES = [
    ("llama", "float32"),
    ("llama", "bfloat16"),
    ("gemma2", "bfloat16"),
    ("qwen3_moe", "bfloat16"),
    ("gpt_oss", "float32"),
    ("llama4_text", "float32"),
    ("phi3", "bfloat16"),
]


def build(
    folder: Path, model_type: str, dtype: str, *, batch_invariant: bool = True
) -> ModelRunner:
    # Sizes that are no multiple of a vector, and a product whose kernel depends on the rows.
    make_model(model_type, folder, intermediate_size=1500)
    return make_runner(folder, dtype=dtype, block_size=8, batch_invariant=batch_invariant)


def logits_of(
    runner: ModelRunner, requests: list[Request], *, max_step_tokens: int = 512, num_blocks: int = 0
) -> tuple[Rows, Scheduler, int]:
    """Runs requests together; also returns how many prompt tokens were found in the cache."""
    info = runner.info
    pool = BlockPool(num_blocks=num_blocks or info.num_blocks, block_size=info.block_size)
    scheduler = Scheduler(pool=pool, max_running=8, max_step_tokens=max_step_tokens)
    for request in requests:
        scheduler.add(request)
    rows: Rows = {request.id: [] for request in requests}
    cached = {}
    while (plan := scheduler.plan()) is not None:
        logits = runner.logits(plan)
        sampled = [chunk for chunk in plan.chunks if chunk.sampling is not None]
        for chunk, row in zip(sampled, logits, strict=True):
            rows[chunk.request_id].append(row)
        for event in scheduler.commit(plan, StepOutput(logits.argmax(dim=-1).tolist())):
            cached[event.request_id] = event.num_cached
    return rows, scheduler, sum(cached.values())


def requests_for(seed: int, *, longest: int = 24) -> list[Request]:
    """Half of the prompts share their beginning; lengths cross the first numbers of keys."""
    source = random.Random(seed)
    shared = random_prompts(1, seed=seed)[0][:33]
    prompts = random_prompts(6, seed=seed + 1, longest=90)
    return [
        greedy_request(index, shared + prompt if index % 2 else prompt, source.randint(4, longest))
        for index, prompt in enumerate(prompts)
    ]


def differing(first: Rows, second: Rows) -> list[tuple[int, int]]:
    """Request and token number wherever logits are not the same to the bit."""
    return [
        (request, number)
        for request, rows in first.items()
        for number, (one, other) in enumerate(zip(rows, second[request], strict=True))
        if not torch.equal(one, other)
    ]


def alone(runner: ModelRunner, requests: list[Request]) -> Rows:
    return {r.id: logits_of(runner, [r])[0][r.id] for r in requests}


@pytest.mark.parametrize(("model_type", "dtype"), CASES)
def test_any_schedule_gives_the_same_bits(model_type: str, dtype: str, tmp_path: Path) -> None:
    runner = build(tmp_path, model_type, dtype)
    num_preemptions = num_cached = 0
    requests = requests_for(0)
    expected = alone(runner, requests)
    for num_blocks, budget in [(0, 40), (20, 8)]:
        rows, scheduler, found = logits_of(
            runner, requests, max_step_tokens=budget, num_blocks=num_blocks
        )
        num_preemptions += scheduler.statistics().num_preemptions
        num_cached += found
        assert differing(expected, rows) == []
    assert num_preemptions, "nothing was computed again"
    assert num_cached, "no prefix was found again"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_the_flag_bits_differ(dtype: str, tmp_path: Path) -> None:
    """If not, the test above would prove nothing."""
    runner = build(tmp_path, "llama", dtype, batch_invariant=False)
    requests = requests_for(0, longest=40)
    expected = alone(runner, requests)
    rows, _, _ = logits_of(runner, requests, max_step_tokens=17, num_blocks=26)
    assert {r: len(found) for r, found in rows.items()} == {r.id: r.max_tokens for r in requests}
    assert any(
        not torch.equal(one, other)
        for r in rows
        for one, other in zip(expected[r], rows[r], strict=True)
    )


def change_nothing(*args: object) -> None:
    """In place of make_invariant."""


def plain_torch(padding_block: int) -> GatheredBackend:
    """In place of TiledBackend."""
    return GatheredBackend()


@pytest.mark.parametrize(
    ("part", "replacement", "dtype"),
    [
        ("make_invariant", change_nothing, "float32"),
        ("TiledBackend", plain_torch, "float32"),
        ("TiledBackend", plain_torch, "bfloat16"),
    ],
)
def test_a_model_that_cannot_keep_the_promise_is_refused(
    part: str, replacement: object, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"millstream.model.invariant_execution.{part}", replacement)
    with pytest.raises(StartupError, match=r"--batch-invariant: the .* depend on what is computed"):
        build(tmp_path, "llama", dtype)


def test_a_shared_model_keeps_its_modules(tmp_path: Path) -> None:
    """Someone else's model object is run within the operators as a whole."""
    make_model("llama", tmp_path, intermediate_size=1500)
    settings = Settings(model_id=str(tmp_path), batch_invariant=True)  # type: ignore[call-arg]
    loaded = replace(load_model(tmp_path, settings), is_shared=True)
    runner = build_runner(loaded, settings)
    assert not any("forward" in vars(module) for module in loaded.model.modules())
    requests = requests_for(0)
    rows, _, _ = logits_of(runner, requests, max_step_tokens=17, num_blocks=26)
    assert differing(alone(runner, requests), rows) == []


def test_wrong_bits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant, but not what the model computes."""
    real = attention_tiles.attend_tiles

    def doubled(*args: Any) -> Tensor:
        return 2 * real(*args)

    monkeypatch.setattr("millstream.model.invariant.tiled_backend.attend_tiles", doubled)
    with pytest.raises(StartupError, match="differ from those without the flag"):
        build(tmp_path, "llama", "float32")


def test_refused_on_a_gpu(tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    settings = Settings(model_id=str(tmp_path), batch_invariant=True)  # type: ignore[call-arg]
    loaded = replace(load_model(tmp_path, settings), device=torch.device("cuda"))
    with pytest.raises(StartupError, match="--batch-invariant: implemented for the CPU only"):
        build_runner(loaded, settings)


def test_a_cache_of_few_blocks_is_checked_as_well(tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    block_bytes = 4 * (8 * 2 * 16 * 2 * 4)  # layers x (tokens x kv heads x dims x 2 x bytes)
    for count in (1, 2, 3):
        runner = make_runner(
            tmp_path, block_size=8, kv_cache_memory=count * block_bytes, batch_invariant=True
        )
        assert runner.info.num_blocks == count
