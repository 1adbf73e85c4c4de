"""The sampler: its random streams, its draws, and that rows do not know of each other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from millstream.core.plan import IMPOSSIBLE_TOKEN, INVALID_TOKEN, Chunk
from millstream.core.request import SamplingParams
from millstream.model.sampling import filters
from millstream.model.sampling.logprobs import sampled_logprobs
from millstream.model.sampling.numbers import uniform
from millstream.model.sampling.reductions import Workspace, best_of, block_maxima, pick, total
from millstream.model.sampling.sampler import Sampler
from tests.model.sampling_cases import make_chunk, random_chunk, random_logits

# Not a multiple of the block, so that the last block is a short one.
VOCAB = 1500

# One for each way through the sampler.
WAYS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.0, repetition_penalty=1.2),
    SamplingParams(seed=1),
    SamplingParams(temperature=0.7, top_p=0.9, seed=2),
    SamplingParams(top_k=5, seed=3),
    SamplingParams(min_p=0.1, seed=4),
    SamplingParams(typical_p=0.9, seed=5),
    SamplingParams(top_p=0.9, typical_p=0.5, logit_bias=((1, 2.0),), seed=6),
]


def sample(logits: torch.Tensor, chunks: list[Chunk]) -> list[int]:
    return Sampler().sample(logits, chunks)


@pytest.fixture(params=[(16, 100), (), filters.LEADER_COUNTS], ids=["short", "full", "default"])
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "LEADER_COUNTS", request.param)


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def test_streams_differ_by_seed_and_counter_and_are_uniform() -> None:
    assert uniform(1, 2) == uniform(1, 2)
    assert len({uniform(seed, counter) for seed in range(50) for counter in range(50)}) == 2500
    numbers = [uniform(5, counter) for counter in range(10_000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert uniform(2**64 - 1, 0) < 1.0


def test_pick_is_inverse_transform_sampling_in_vocabulary_order() -> None:
    weights = random_logits(4000, VOCAB).softmax(dim=-1)
    weights[:, ::3] = 0.0
    points = torch.tensor([uniform(8, row) for row in range(len(weights))], dtype=torch.float64)
    sums = weights.double().cumsum(dim=-1)
    expected = torch.searchsorted(sums, points.unsqueeze(1) * sums[:, -1:], right=True)
    assert torch.equal(pick(weights, points), expected.squeeze(1))


@pytest.mark.parametrize("weights", [[0, 5, 0, 0], [0, 1e-38, 1, 0], [3, 0, 0, 4]])
@pytest.mark.parametrize("padding", [0, 60, 100])
def test_pick_hits_the_ends_and_nothing_beyond(weights: list[float], padding: int) -> None:
    """The smallest and the largest number must not point at a token without weight."""
    row = torch.tensor([[0.0] * padding + weights + [0.0] * padding])
    possible = [index + padding for index, weight in enumerate(weights) if weight > 0]
    (low,) = pick(row, torch.zeros(1, dtype=torch.float64)).tolist()
    (high,) = pick(row, torch.tensor([1 - 2.0**-53], dtype=torch.float64)).tolist()
    assert (low, high) == (possible[0], possible[-1])


@pytest.mark.parametrize("vocab", [1, 63, 64, 65, 1000])
def test_best_is_the_lowest_of_equals(vocab: int) -> None:
    rows = random_logits(200, vocab).round()
    best, ids = best_of(rows, block_maxima(rows))
    assert torch.equal(best, rows.amax(dim=-1))
    expected = [(row == row.max()).nonzero()[0].item() for row in rows]
    assert ids.tolist() == expected


def test_reductions_of_a_row_do_not_depend_on_the_batch(threads: int) -> None:
    """Bit for bit, with several threads: sums of one long row must not be split among them."""
    rows = random_logits(7, 151_936)
    sums, maxima = total(rows), block_maxima(rows)
    ids = maxima.topk(5).indices
    everyone = filters.population(rows, ids, rows.clone(), with_entropy=True)
    for index in range(len(rows)):
        row = rows[index : index + 1]
        alone = filters.population(row, ids[index : index + 1], row.clone(), with_entropy=True)
        assert torch.equal(total(row)[0], sums[index])
        for name in ("weights", "mass", "best", "entropy"):
            assert torch.equal(getattr(alone, name)[0], getattr(everyone, name)[index]), name


@pytest.mark.parametrize("seed", range(8))
def test_rows_in_any_mix_equal_each_alone(seed: int, looks: None, threads: int) -> None:
    """All options mixed at random: tokens and log probabilities, bit for bit."""
    source = random.Random(seed)
    chunks = [random_chunk(source, VOCAB, index) for index in range(40)]
    logits = random_logits(len(chunks), VOCAB, seed=seed)
    tokens = sample(logits, chunks)
    logprobs = sampled_logprobs(logits, chunks, tokens)
    assert len(logprobs) > 10
    order = list(range(len(chunks)))
    source.shuffle(order)
    part = order[: len(order) // 3]
    assert sample(logits[part], [chunks[i] for i in part]) == [tokens[i] for i in part]
    for index, chunk in enumerate(chunks):
        row = logits[index : index + 1]
        assert sample(row, [chunk]) == [tokens[index]]
        alone = sampled_logprobs(row, [chunk], [tokens[index]])
        assert alone.get(0) == logprobs.get(index)


def test_rows_of_a_real_vocabulary_equal_each_alone(threads: int) -> None:
    vocab, source = 151_936, random.Random(1)
    chunks = [random_chunk(source, vocab, index) for index in range(24)]
    logits = random_logits(len(chunks), vocab)
    tokens = sample(logits, chunks)
    torch.set_num_threads(1)
    assert len(set(tokens)) > 12
    for index, chunk in enumerate(chunks):
        assert sample(logits[index : index + 1], [chunk]) == [tokens[index]]


@pytest.mark.parametrize("seed", range(6))
def test_state_changes_no_result(seed: int) -> None:
    """A sampler that has followed the requests, and fresh ones that only see their histories."""
    source = random.Random(seed)
    chunks = [random_chunk(source, VOCAB, index) for index in range(12)]
    followed = Sampler()
    for step in range(25):
        logits = random_logits(len(chunks), VOCAB, seed=100 * seed + step)
        present = [index for index in range(len(chunks)) if source.random() < 0.8]
        rows = [chunks[index] for index in present]
        tokens = followed.sample(logits[present], rows)
        assert tokens == sample(logits[present], rows), step
        for chunk, token in zip(rows, tokens, strict=True):
            chunk.history.append(max(token, 0))
        # As if the request had been preempted and its sequence built again.
        again = source.choice(present)
        chunks[again] = chunks[again]._replace(history=list(chunks[again].history))


def test_state_is_dropped_when_requests_are_gone() -> None:
    sampler, params = Sampler(), SamplingParams(temperature=0.0, repetition_penalty=2.0)
    logits = random_logits(50, VOCAB)
    sampler.sample(logits, [make_chunk(params, request_id=index) for index in range(50)])
    assert len(sampler.kept_requests) == 50
    other = make_chunk(params, request_id=99)
    for _ in range(40):
        sampler.sample(logits[:1], [other])
    assert sampler.kept_requests == [99]


class Watched(list[int]):
    """Notes how many tokens are read at once, and forbids to walk through all of them."""

    largest = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(key, slice):
            self.largest = max(self.largest, len(found))
        return found

    def __iter__(self) -> Any:
        raise AssertionError("walked through the history")


def test_a_step_reads_new_tokens_only() -> None:
    params = SamplingParams(
        temperature=0.0,
        repetition_penalty=1.1,
        frequency_penalty=0.5,
        bad_words=((1, 2, 3), (4, 5), (6,)),
        min_tokens=10_000,
    )
    chunk = make_chunk(params, answer=tuple(range(500)))
    chunk = chunk._replace(history=Watched(chunk.history))
    sampler, logits = Sampler(), random_logits(1, VOCAB)
    sampler.sample(logits, [chunk])
    chunk.history.largest = 0  # type: ignore[attr-defined]
    for _ in range(5):
        chunk.history.extend(sampler.sample(logits, [chunk]))
    assert chunk.history.largest <= 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("params", WAYS)
def test_broken_row_is_told_and_alone(bad: float, params: SamplingParams) -> None:
    logits = random_logits(3, VOCAB)
    chunks = [make_chunk(params, request_id=index) for index in range(3)]
    expected = sample(logits, chunks)
    broken = logits.clone()
    broken[1, 5] = bad
    assert sample(broken, chunks) == [expected[0], INVALID_TOKEN, expected[2]]
    asked = [make_chunk(SamplingParams(logprobs=2), request_id=index) for index in range(3)]
    assert set(sampled_logprobs(broken, asked, sample(broken, asked))) == {0, 2}


def test_row_without_a_possible_token_is_told() -> None:
    logits = torch.full((1, 10), float("-inf"))
    for params in WAYS:
        assert sample(logits, [make_chunk(params)]) == [INVALID_TOKEN]


@pytest.mark.parametrize("params", WAYS)
@pytest.mark.parametrize("vocab", [300, 10_000])
def test_request_that_forbids_every_token_fails_alone(params: SamplingParams, vocab: int) -> None:
    """Only stop tokens are allowed, and none before min_tokens: the model is not to blame."""
    values = {name: getattr(params, name) for name in SamplingParams.__slots__}
    strict = SamplingParams(**values | {"allowed_token_ids": (3, 4), "min_tokens": 2})
    logits = random_logits(3, vocab)
    before, after = (make_chunk(strict, answer=answer) for answer in ((), (7, 7)))
    neighbour = make_chunk(params, request_id=1)
    (expected,) = sample(logits[1:2], [neighbour])
    chunks = [before, neighbour, after._replace(request=after.request)]
    tokens = sample(logits, chunks)
    assert tokens[:2] == [IMPOSSIBLE_TOKEN, expected]
    assert tokens[2] in (3, 4)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1e-42),
        SamplingParams(temperature=1e-6, top_p=0.5),
        SamplingParams(temperature=1e300, allowed_token_ids=(5, 6)),
        SamplingParams(logit_bias=((5, 1e39), (6, 1e39), (5, 1e39))),
        SamplingParams(logit_bias=((7, -1e39),), temperature=0.0),
        SamplingParams(repetition_penalty=1e-45),
        SamplingParams(repetition_penalty=1e38, temperature=1e-30),
        SamplingParams(frequency_penalty=-1e39, top_k=3),
        SamplingParams(top_p=0.0),
        SamplingParams(min_p=5.0),
        SamplingParams(typical_p=1e-9),
        SamplingParams(top_k=2**40),
    ],
)
def test_extreme_options_still_draw_a_token(params: SamplingParams) -> None:
    logits = random_logits(1, VOCAB)
    (token,) = sample(logits, [make_chunk(params, answer=(5, 6))])
    assert 0 <= token < VOCAB
    if params.temperature < 1e-5 or params.top_p == 0.0 or params.min_p > 1:
        best = logits.clone()
        best[0, [1, 2, 5, 6]] = -9.0  # what the penalty pushes down
        assert token == int((best if params.repetition_penalty > 1 else logits).argmax())


def test_ids_outside_the_logits_are_harmless() -> None:
    params = SamplingParams(
        temperature=0.0,
        repetition_penalty=1.5,
        logit_bias=((VOCAB, 50.0),),
        bad_words=((VOCAB + 1,), (1, VOCAB), (VOCAB, 2)),
        allowed_token_ids=(VOCAB, 8, 9),
    )
    chunk = make_chunk(params, prompt=(1, VOCAB + 7), answer=(VOCAB,))
    assert sample(random_logits(1, VOCAB), [chunk])[0] in (8, 9)


@pytest.mark.parametrize("params", WAYS)
def test_bfloat16_rows_are_drawn_in_float32(params: SamplingParams) -> None:
    logits = random_logits(1, VOCAB).bfloat16()
    chunk = make_chunk(params)
    assert sample(logits, [chunk]) == sample(logits.float(), [chunk])


def test_logits_are_not_changed() -> None:
    """Log probabilities are taken from them afterwards."""
    source = random.Random(2)
    chunks = [random_chunk(source, VOCAB, index) for index in range(40)]
    logits = random_logits(len(chunks), VOCAB)
    before = logits.clone()
    sample(logits, chunks)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("vocab", [10, 32_000, 151_936, 400_000])
def test_tiles_cover_all_rows_and_stay_small(vocab: int) -> None:
    seen: list[int] = []
    for rows, *spaces in Workspace(range(64), vocab, torch.device("cpu")).tiles():
        seen += rows
        assert all(space.shape == (len(rows), vocab) for space in spaces)
        assert len(rows) <= max(torch.get_num_threads(), 2**20 // vocab)
    assert seen == list(range(64))
