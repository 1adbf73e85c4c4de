"""Families of models whose layers keep states answer as transformers' generate does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from millstream.core.blocks import BlockPool
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.model.runner import ModelRunner
from tests.model.architectures import STATEFUL, greedy, make_model
from tests.model.steps import run_step
from tests.model.test_architectures import greedy_request, make_runner, random_prompts

BLOCK_SIZE = 8
ANSWER_TOKENS = 16


def poison(runner: ModelRunner, pool: StatePool) -> None:
    """Writes NaN into every slot that nobody holds."""
    assert runner.states is not None
    free = [*pool.slots.forget_free(range(pool.slots.num_blocks)), runner.states.spare_slot]
    for tensor in runner.states.tensors.values():
        tensor[free] = torch.nan


def answers(
    runner: ModelRunner, prompts: list[tuple[int, ...]], *, budget: int, num_slots: int
) -> tuple[dict[int, list[int]], Scheduler, int]:
    """What each prompt is answered, the scheduler afterwards, and the most tokens that a prompt
    found in the prefix cache. Requests arrive at random; slots are poisoned at random."""
    source = random.Random(budget)
    states = StatePool(num_slots=num_slots, block_size=BLOCK_SIZE, interval=BLOCK_SIZE)
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=8, block_size=BLOCK_SIZE),
        max_running=min(budget, 4),
        max_step_tokens=budget,
        states=states,
    )
    waiting = [greedy_request(i, prompt, ANSWER_TOKENS) for i, prompt in enumerate(prompts)]
    result: dict[int, list[int]] = {request.id: [] for request in waiting}
    cached = 0
    poison(runner, states)
    while waiting or scheduler.has_work:
        if waiting and (not scheduler.has_work or source.random() < 0.7):
            scheduler.add(waiting.pop())
        plan = scheduler.plan()
        assert plan is not None
        for event in scheduler.commit(plan, run_step(runner, plan)):
            result[event.request_id] += event.token_ids
            cached = max(cached, event.num_cached)
        scheduler.check()
        if source.random() < 0.3:
            poison(runner, states)
    return result, scheduler, cached


@pytest.mark.parametrize("model_type", STATEFUL)
def test_chunks_of_any_size_change_no_answer(model_type: str, tmp_path: Path) -> None:
    """Prompts share their beginning; blocks are few, so that sequences are preempted."""
    model = make_model(model_type, tmp_path)
    shared = random_prompts(1, seed=5)[0][:9]
    prompts = [shared + prompt for prompt in random_prompts(4, seed=1, longest=8)]
    expected = {i: greedy(model, prompt, ANSWER_TOKENS) for i, prompt in enumerate(prompts)}
    assert len({tuple(answer) for answer in expected.values()}) == 4, "degenerate model"
    runner = make_runner(tmp_path, block_size=BLOCK_SIZE, device="cpu")
    preemptions = hits = 0
    for budget, num_slots in ((1, 3), (6, 4), (64, 12)):
        found, scheduler, cached = answers(runner, prompts, budget=budget, num_slots=num_slots)
        assert found == expected, budget
        preemptions += scheduler.statistics().num_preemptions
        hits += cached > 0
    assert preemptions > 0
    assert hits > 0
