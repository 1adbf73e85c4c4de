"""The dialogue writer: the same for the same seed, and never showing a held-out prompt."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from demo.dialogues import SKILLS, held_out_dialogue, training_dialogues
from demo.dialogues.base import SHOWN_PROMPTS, is_held_out, normalise
from demo.evaluate import held_out_set

DIALOGUES = 20_000


@pytest.fixture(scope="module")
def trained_prompts() -> set[str]:
    return {d.prompt_key() for d in islice(training_dialogues(0), DIALOGUES)}


def test_the_same_seed_writes_the_same_dialogues() -> None:
    first = list(islice(training_dialogues(7), 500))
    assert first == list(islice(training_dialogues(7), 500))
    assert first != list(islice(training_dialogues(8), 500))


def test_the_same_seed_asks_the_same_held_out_prompts() -> None:
    assert held_out_set("tools", 10) == held_out_set("tools", 10)


@pytest.mark.parametrize("skill", SKILLS)
def test_training_never_shows_a_held_out_prompt(skill: str, trained_prompts: set[str]) -> None:
    rng = random.Random(skill)
    for _ in range(100):
        assert held_out_dialogue(rng, skill).prompt_key() not in trained_prompts


def test_training_shows_the_prompts_of_the_documentation(trained_prompts: set[str]) -> None:
    for prompt in SHOWN_PROMPTS:
        assert not is_held_out(prompt)
        assert normalise(prompt) in trained_prompts


def test_case_and_punctuation_do_not_make_a_prompt_new() -> None:
    assert normalise("Count to 10!") == normalise("count to  10")
