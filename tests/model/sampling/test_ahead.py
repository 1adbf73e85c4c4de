"""Rows drawn ahead get the tokens that they get otherwise, and the others are drawn as ever."""

from __future__ import annotations

import random

import pytest
import torch

from millstream.core.plan import INVALID_TOKEN, UNKNOWN_TOKEN, Chunk
from millstream.core.request import SamplingParams
from millstream.model.sampling import filters
from millstream.model.sampling.ahead import (
    DrawnAhead,
    Kind,
    draw_plain,
    kind_of,
    plain_rows,
    words_of_rows,
)
from millstream.model.sampling.draws import UNDECIDED
from millstream.model.sampling.sampler import Sampler, best_tokens
from tests.model.sampling_cases import (
    make_chunk,
    random_logits,
    random_params,
    without_constraints,
)

# Not a multiple of the block, so that the last block is a short one.
VOCAB = 1500


def drawn_ahead(
    logits: torch.Tensor, chunks: list[Chunk], *, kind: Kind | None = None, padding: int = 0
) -> DrawnAhead:
    """What a device computes behind the logits, with rows for nobody after the others."""
    rows = plain_rows(chunks, VOCAB)
    padded = torch.cat([logits, torch.zeros(padding, VOCAB, dtype=logits.dtype)])
    best = best_tokens(padded)
    words = torch.from_numpy(words_of_rows(rows, len(padded)))
    tokens = draw_plain(padded, best, words, kind_of(rows) if kind is None else kind)
    next_tokens = torch.where(tokens == UNDECIDED, best, tokens)
    count = len(chunks)
    return DrawnAhead(rows, torch.stack([best, tokens])[:, :count], next_tokens[:count])


def random_chunks(seed: int, count: int, *, plain_share: float) -> list[Chunk]:
    source = random.Random(seed)
    chunks = []
    for index in range(count):
        params = random_params(source, VOCAB)
        if source.random() < plain_share:
            params = without_constraints(params)
        answer = tuple(source.choices(range(VOCAB), k=source.randint(0, 5)))
        chunks.append(make_chunk(params, request_id=index, answer=answer))
    return chunks


@pytest.mark.parametrize("looks", [(16, 100), (), filters.LEADER_COUNTS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(6))
def test_a_step_drawn_ahead_is_the_step(
    seed: int, dtype: torch.dtype, looks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "LEADER_COUNTS", looks)
    chunks = random_chunks(seed, 40, plain_share=0.7)
    logits = random_logits(len(chunks), VOCAB, seed=seed).to(dtype)
    expected = Sampler().sample(logits, chunks)
    ahead = drawn_ahead(logits, chunks, padding=seed)
    assert 10 < sum(row is not None for row in ahead.rows) < len(chunks)
    sampler = Sampler()
    drawing = sampler.launch(logits, chunks, ahead)
    next_tokens = drawing.tokens().tolist()
    tokens, late = sampler.finish(drawing)
    assert tokens == expected
    assert sorted(late) == [row for row, token in enumerate(tokens) if token != next_tokens[row]]
    assert not late or looks


def test_undecided_rows_are_drawn_again_and_told_as_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "LEADER_COUNTS", (4, 16))
    params = [SamplingParams(top_p=0.999, seed=seed) for seed in range(40)]
    chunks = [make_chunk(one, request_id=one.seed) for one in params]
    logits = torch.zeros(1, VOCAB).index_fill(1, torch.tensor([33]), 4.0).expand(40, VOCAB)
    ahead = drawn_ahead(logits, chunks)
    assert set(ahead.tokens[1].tolist()) == {UNDECIDED}
    sampler = Sampler()
    wanted = [None if chunk.request_id % 4 == 0 else chunk for chunk in chunks]
    tokens, late = sampler.finish(sampler.launch(logits, wanted, ahead))
    expected = Sampler().sample(logits, chunks)
    assert [tokens[i] for i in range(40) if i % 4] == [expected[i] for i in range(40) if i % 4]
    assert sorted(late) == [row for row in range(40) if row % 4 and tokens[row] != 33]
    assert len(late) > 20


def test_a_token_that_is_drawn_meanwhile_counts() -> None:
    """The point of a row is that of the place which its token will have in the answer."""
    params = SamplingParams(temperature=0.9, top_p=0.95, min_tokens=2, seed=7)
    known = make_chunk(params, answer=(5, 6))
    unknown = make_chunk(params, answer=(5,))._replace(tokens=(UNKNOWN_TOKEN,))
    assert plain_rows([unknown], VOCAB) == plain_rows([known], VOCAB) != [None]
    too_early = make_chunk(params, answer=())._replace(tokens=(UNKNOWN_TOKEN,))
    assert plain_rows([too_early], VOCAB) == [None], "its stop tokens are forbidden"


@pytest.mark.parametrize("kind", Kind)
def test_work_for_others_changes_no_token(kind: Kind) -> None:
    """A row is drawn alike by every kind of work that serves it."""
    choices = [
        SamplingParams(temperature=0.0, top_k=200, top_p=0.1),
        SamplingParams(temperature=0.8),
        SamplingParams(temperature=1e-40),
        SamplingParams(temperature=0.8, top_k=20, min_p=0.01),
    ]
    own = {0: Kind.GREEDY, 1: Kind.UNFILTERED, 2: Kind.UNFILTERED, 3: Kind.FILTERED}
    for number, params in enumerate(choices):
        chunks = [make_chunk(params, request_id=i) for i in range(3)]
        assert kind_of(plain_rows(chunks, VOCAB)) is own[number]
        if kind >= own[number]:
            logits = random_logits(3, VOCAB, seed=number)
            ahead = drawn_ahead(logits, chunks, kind=kind)
            assert ahead.tokens[1].tolist() == Sampler().sample(logits, chunks)


def test_rows_without_a_token_are_told() -> None:
    chunks = [make_chunk(SamplingParams(seed=i, top_p=0.9), request_id=i) for i in range(3)]
    logits = random_logits(3, VOCAB)
    logits[0, 7], logits[1] = float("nan"), float("-inf")
    sampler = Sampler()
    tokens = sampler.finish(sampler.launch(logits, chunks, drawn_ahead(logits, chunks))).tokens
    assert tokens == sampler.sample(logits, chunks)
    assert tokens[:2] == [INVALID_TOKEN, INVALID_TOKEN]
    assert tokens[2] >= 0
