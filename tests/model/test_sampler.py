"""The sampler against transformers' own logits processors, and its random streams."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from millstream.core.request import INVALID_TOKEN, SamplingParams
from millstream.model.sampler import keep_top, sample, uniform

PARAMS = [
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, seed=9)
    for temperature in (0.3, 1.0, 1.7)
    for top_k in (0, 1, 5, 40, 10_000)
    for top_p in (0.05, 0.5, 0.95, 1.0)
]


def reference(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Probabilities after transformers' processors, in its order."""
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    ids = torch.zeros(1, 1, dtype=torch.long)
    return processors(ids, logits.unsqueeze(0))[0].softmax(-1)


def random_logits(rows: int, vocab: int = 300) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(3)) * 3


def test_kept_tokens_equal_transformers() -> None:
    logits = random_logits(len(PARAMS))
    scaled = logits / torch.tensor([p.temperature for p in PARAMS]).unsqueeze(1)
    kept = keep_top(scaled, PARAMS)
    for row, params in enumerate(PARAMS):
        assert torch.equal(kept[row], reference(logits[row], params) > 0), params


@pytest.mark.parametrize("params", PARAMS[:: len(PARAMS) // 6])
def test_draws_follow_the_probabilities(params: SamplingParams) -> None:
    logits = random_logits(1, vocab=12)
    expected = reference(logits[0], params)
    draws = 4000
    tokens = sample(logits.expand(draws, -1), [(params, counter) for counter in range(draws)])
    counts = Counter(tokens)
    assert set(counts) <= set(torch.nonzero(expected).flatten().tolist())
    for token, probability in enumerate(expected.tolist()):
        deviation = (probability * (1 - probability) / draws) ** 0.5
        assert abs(counts[token] / draws - probability) <= 5 * deviation + 1e-6


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits = random_logits(len(PARAMS) + 1)
    rows = [(params, 7 + index) for index, params in enumerate(PARAMS)]
    rows.append((SamplingParams(temperature=0.0), 3))
    together = sample(logits, rows)
    assert together == [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    backwards = sample(logits.flip(0), rows[::-1])
    assert together == backwards[::-1]
    assert together[-1] == int(logits[-1].argmax())


def test_streams_differ_by_seed_and_counter_and_are_uniform() -> None:
    assert uniform(1, 2) == uniform(1, 2)
    assert len({uniform(seed, counter) for seed in range(50) for counter in range(50)}) == 2500
    numbers = [uniform(5, counter) for counter in range(10_000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert uniform(2**64 - 1, 0) < 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_row_is_told_and_alone(bad: float, temperature: float) -> None:
    logits = random_logits(3)
    rows = [(SamplingParams(temperature=temperature, seed=1), 0)] * 3
    expected = sample(logits, rows)
    broken = logits.clone()
    broken[1, 5] = bad
    assert sample(broken, rows) == [expected[0], INVALID_TOKEN, expected[2]]


def test_row_without_a_possible_token_is_told() -> None:
    logits = torch.full((1, 10), float("-inf"))
    assert sample(logits, [(SamplingParams(temperature=0.0), 0)]) == [INVALID_TOKEN]


def test_bfloat16_rows_are_drawn_in_float32() -> None:
    logits = random_logits(1).bfloat16()
    rows = [(SamplingParams(temperature=0.7, top_p=0.9, seed=4), 1)]
    assert sample(logits, rows) == sample(logits.float(), rows)


@pytest.mark.parametrize("number", [0.0, 1.0 - 2.0**-53])
def test_ends_of_the_stream_hit_possible_tokens(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest and the largest number must not point at a token that was filtered out."""
    monkeypatch.setattr("millstream.model.sampler.uniform", lambda seed, counter: number)
    logits = torch.tensor([[0.0, 9.0, 8.0, 0.0]])
    (token,) = sample(logits, [(SamplingParams(temperature=1.0, top_k=2), 0)])
    assert token == (1 if number == 0.0 else 2)
