"""Steps that nobody has asked for: as large as any step can be, and without a trace."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import torch

from millstream.core.plan import Plan
from millstream.model import build
from millstream.model.cuda import warm_up
from millstream.model.cuda.capture import capture_decodes
from millstream.model.cuda.staging import Staging
from millstream.model.cuda.trial_steps import largest_step, rows_with_prompt, run_ahead
from millstream.model.execution import EagerExecution
from millstream.model.states.state_cache import StateCache
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import CPU, EagerRecording, PlainBackend
from tests.model.test_architectures import greedy_request, make_runner
from tests.model.test_schedules import BLOCK_SIZE, drive


@pytest.mark.parametrize(
    ("max_rows", "max_tokens", "max_context"),
    [(1, 64, 200), (8, 64, 200), (8, 64, 20), (8, 10, 200), (2, 64, 20), (256, 320, 8192)],
)
def test_the_largest_step_is_as_large_as_a_step_may_be(
    max_rows: int, max_tokens: int, max_context: int
) -> None:
    plan = largest_step(
        max_rows=max_rows,
        max_tokens=max_tokens,
        max_context=max_context,
        block_size=8,
        states=None,
    )
    lengths = [len(chunk.tokens) for chunk in plan.chunks]
    assert plan.num_tokens == min(max_tokens, max_rows * max_context)
    assert len(lengths) == len({chunk.request_id for chunk in plan.chunks}) == max_rows
    assert lengths == sorted(lengths), "decode rows come first"
    assert lengths[-1] <= max_context
    assert plan.num_sampled == max_rows
    assert sum(len(chunk.scored) for chunk in plan.chunks) == plan.num_tokens - max_rows
    assert all(len(chunk.block_table) == -(-len(chunk.tokens) // 8) for chunk in plan.chunks)


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_trial_steps_write_to_the_first_block_and_the_spare_slot(
    family: str, tmp_path: Path
) -> None:
    make_model(family, tmp_path)
    runner = make_runner(tmp_path, block_size=BLOCK_SIZE)
    cache, states, eager = runner.cache, runner.states, runner.execution
    assert isinstance(eager, EagerExecution)
    for tensor in (*cache.keys.values(), *cache.values.values(), *_tensors(states)):
        tensor.zero_()
    eager.logits(rows_with_prompt(3, 2, block_size=BLOCK_SIZE, states=states))
    plan = largest_step(
        max_rows=6, max_tokens=64, max_context=200, block_size=BLOCK_SIZE, states=states
    )
    run_ahead(eager, plan)
    for tensor in (*cache.keys.values(), *cache.values.values()):
        assert tensor[0].any()
        assert tensor.isfinite().all()
        assert not tensor[1:].any()
    assert (states is not None) == (family == "lfm2")
    for tensor in _tensors(states):
        assert tensor[-1].any()
        assert not tensor[:-1].any()


def _tensors(states: StateCache | None) -> list:  # type: ignore[type-arg]
    return [] if states is None else list(states.tensors.values())


@pytest.mark.parametrize("fits", [True, False])
def test_the_largest_step_is_run_before_an_engine_is_ready(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    fits: bool,
) -> None:
    """One that does not fit is told, and others are served."""
    plans: list[Plan] = []

    def run(eager: EagerExecution, plan: Plan) -> None:
        plans.append(plan)
        if not fits:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        run_ahead(eager, plan)

    caplog.set_level(logging.WARNING)
    make_model("llama", tmp_path)
    staging = Staging.for_steps(CPU, max_tokens=128, max_rows=8, max_blocks=256)
    monkeypatch.setattr(build, "_attention", lambda *_: ([PlainBackend()], staging))
    capture = partial(capture_decodes, record=EagerRecording)
    monkeypatch.setattr(warm_up, "capture_decodes", capture)
    monkeypatch.setattr(warm_up, "run_ahead", run)
    settings = Settings(
        model_id=str(tmp_path), max_concurrent_requests=8, max_batch_prefill_tokens=128
    )
    runner = build.runner_factory(tmp_path, settings)()
    (plan,) = plans
    assert (len(plan.chunks), plan.num_tokens) == (8, 128)
    told = "the largest step does not fit beside the KV cache" in caplog.text
    assert told == ("--kv-cache-memory" in caplog.text) == (not fits)
    driver = drive(runner, num_blocks=20, max_running=2, max_step_tokens=24)
    driver.scheduler.add(greedy_request(1, (1, 2, 3), 5))
    driver.run()
    assert len(driver.answers[1]) == 5
