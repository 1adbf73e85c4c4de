"""A sequence goes on from the deepest snapshot whose blocks are still there, with equal results."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.core.blocks import BlockPool
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.model.runner import ModelRunner
from tests.model.architectures import greedy, make_model
from tests.model.steps import run_step
from tests.model.test_architectures import make_runner

BLOCK = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lfm2")
    make_model("lfm2", folder)
    return folder


@pytest.fixture
def runner(folder: Path) -> ModelRunner:
    return make_runner(folder, block_size=BLOCK)


class Turns:
    """Requests, one after the other, on one scheduler."""

    def __init__(self, runner: ModelRunner, *, num_slots: int, interval: int = 1000) -> None:
        self.runner = runner
        self.states = StatePool(num_slots=num_slots, block_size=BLOCK, interval=interval)
        self.scheduler = Scheduler(
            pool=BlockPool(num_blocks=64, block_size=BLOCK),
            max_running=4,
            max_step_tokens=64,
            states=self.states,
        )
        self.num_computed = 0
        self._count = 0

    def ask(self, prompt: tuple[int, ...], max_tokens: int = 20) -> tuple[tuple[int, ...], int]:
        """The answer, and how many tokens of the prompt were found."""
        self._count += 1
        sampling = SamplingParams(temperature=0.0)
        self.scheduler.add(
            Request(id=self._count, prompt=prompt, sampling=sampling, max_tokens=max_tokens)
        )
        answer: tuple[int, ...] = ()
        num_cached = self.num_computed = 0
        while (plan := self.scheduler.plan()) is not None:
            self.num_computed += plan.num_tokens
            for event in self.scheduler.commit(plan, run_step(self.runner, plan)):
                answer += event.token_ids
                num_cached = event.num_cached
            self.scheduler.check()
        return answer, num_cached


def test_a_turn_computes_its_new_tokens(runner: ModelRunner, folder: Path) -> None:
    """Eight turns, each repeating prompt and answer of the one before."""
    model, turns = make_model("lfm2", folder), Turns(runner, num_slots=8)
    prompt = tuple(range(1, 30))
    for turn in range(8):
        answer, num_cached = turns.ask(prompt)
        assert list(answer) == greedy(model, prompt, 20)
        new = 29 if turn == 0 else 5
        assert len(prompt) - num_cached < new + BLOCK + 1
        assert turns.num_computed < new + BLOCK + 1 + 20
        prompt += (*answer, 7, 8, 9, 10 + turn)
    # One for each turn's prompt, and the last of its answer, as far as there are slots.
    assert turns.states.slots.num_cached <= 8


def test_another_answer_than_the_cached_one_finds_the_prompt(runner: ModelRunner) -> None:
    """Templates leave things out of what was said, and open answers in another way."""
    turns = Turns(runner, num_slots=8)
    prompt = tuple(range(1, 60))
    turns.ask(prompt)
    _, num_cached = turns.ask((*prompt[:-4], 150, 151, 152))
    assert num_cached == 48


def test_long_prompts_leave_snapshots_on_the_way(runner: ModelRunner) -> None:
    turns = Turns(runner, num_slots=8, interval=32)
    prompt = tuple(position % 150 + 1 for position in range(150))
    turns.ask(prompt, max_tokens=2)
    for shared, found in ((140, 136), (100, 96), (70, 64), (33, 32), (30, 0)):
        _, num_cached = turns.ask((*prompt[:shared], 190, 191), max_tokens=1)
        assert num_cached == found


def test_the_least_recently_used_snapshot_goes_first(runner: ModelRunner) -> None:
    turns = Turns(runner, num_slots=5)
    prompts = [tuple(range(start, start + 40)) for start in (1, 50, 100)]
    for prompt in prompts[:2]:
        assert turns.ask(prompt, max_tokens=1)[1] == 0
    assert turns.ask(prompts[0], max_tokens=1)[1] == 32
    turns.ask(prompts[2], max_tokens=30)  # takes a slot for its prompt, and one for its answer
    assert turns.ask(prompts[0], max_tokens=1)[1] == 32
    assert turns.ask(prompts[1], max_tokens=1)[1] == 0


def test_without_a_slot_to_spare_nothing_is_found_and_all_is_right(
    runner: ModelRunner, folder: Path
) -> None:
    model, turns = make_model("lfm2", folder), Turns(runner, num_slots=1)
    prompt = tuple(range(1, 60))
    for _ in range(2):
        answer, num_cached = turns.ask(prompt)
        assert (list(answer), num_cached) == (greedy(model, prompt, 20), 0)
