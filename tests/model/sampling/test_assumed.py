"""Rows after guesses are drawn as they would be one by one, whatever a request asks for."""

from __future__ import annotations

import random

import pytest
import torch

from millstream.core.plan import IMPOSSIBLE_TOKEN, Chunk
from millstream.core.request import Grammar, Request
from millstream.core.settling import settled
from millstream.model.sampling.grammars import Grammars
from millstream.model.sampling.sampler import Sampler
from millstream.text.grammars.answer_formats import json_grammar, regex_grammar
from tests.model.sampling.test_grammars import (
    PATTERNS,
    STOPS,
    THINK,
    THINK_END,
    TOKENIZER,
    VOCAB,
    noise,
)
from tests.model.sampling_cases import random_params

NUM_ROWS = 12
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def random_request(source: random.Random) -> Request:
    text = source.choice([regex_grammar(source.choice(PATTERNS)), json_grammar(SCHEMA)])
    reasoning: dict[str, int] = source.choice(
        [{}, {"starts_after": THINK_END}, {"starts_after": THINK_END, "opens_with": THINK}]
    )
    return Request(
        id=1,
        prompt=tuple(source.choices(range(400, 500), k=20)),
        sampling=random_params(source, VOCAB),
        max_tokens=100,
        stop_token_ids=STOPS,
        grammar=Grammar(text=text, **reasoning) if source.random() < 0.6 else None,
    )


def one_by_one(sampler: Sampler, request: Request, logits: torch.Tensor) -> list[int]:
    """What is drawn from the rows in turn, up to the end of the answer."""
    history: list[int] = list(request.prompt)
    for row in logits:
        token = sampler.sample(row.unsqueeze(0), [first_chunk(request, history)])[0]
        history.append(token)
        if token < 0 or token in STOPS:
            break
    return history[len(request.prompt) :]


def first_chunk(request: Request, history: list[int]) -> Chunk:
    return Chunk(request, history[-1:], len(history) - 1, [], history, is_last=True)


def chunks_of(request: Request, guess: list[int]) -> list[Chunk]:
    first = first_chunk(request, list(request.prompt))
    return [
        first,
        *(first._replace(assumed=tuple(guess[:end])) for end in range(1, len(guess) + 1)),
    ]


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER.to_str)


@pytest.mark.parametrize("seed", range(60))
def test_right_guesses_give_what_is_drawn_one_by_one(grammars: Grammars, seed: int) -> None:
    source = random.Random(seed)
    request, logits = random_request(source), noise(NUM_ROWS, seed)
    expected = one_by_one(Sampler(grammars), request, logits)
    chunks = chunks_of(request, expected[:-1])
    assert Sampler(grammars).sample(logits[: len(chunks)], chunks) == expected


@pytest.mark.parametrize("seed", range(60))
def test_a_wrong_guess_changes_nothing_before_it(grammars: Grammars, seed: int) -> None:
    """And what is drawn next, by the same sampler, is what is drawn without it."""
    source = random.Random(seed)
    request, logits = random_request(source), noise(NUM_ROWS, seed)
    expected = one_by_one(Sampler(grammars), request, logits)
    wrong = source.randrange(len(expected))
    guess = [*expected[:wrong], source.randrange(VOCAB), *expected[wrong + 1 : -1]][: NUM_ROWS - 1]
    sampler, chunks = Sampler(grammars), chunks_of(request, guess)
    tokens = settled(chunks, sampler.sample(logits[: len(chunks)], chunks))
    counting = [token for token in tokens if token >= 0]
    if IMPOSSIBLE_TOKEN not in expected:
        assert counting[: wrong + 1] == expected[: wrong + 1]
    history = chunks[0].history
    history += expected[: wrong + 1]
    if wrong + 1 < len(expected):
        rest = sampler.sample(logits[wrong + 1 : wrong + 2], [first_chunk(request, history)])
        assert rest == expected[wrong + 1 : wrong + 2]
