"""Every option against transformers' own processor, in transformers' order, on the same logits."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from millstream.core.plan import Chunk
from millstream.core.request import SamplingParams
from millstream.model.sampling import filters
from millstream.model.sampling.constraints import Constraints, constrain
from millstream.model.sampling.numbers import Numbers, uniform
from millstream.model.sampling.reductions import block_maxima
from millstream.model.sampling.sampler import Sampler
from tests.model.sampling_cases import STOPS, make_chunk, random_chunk, random_logits

VOCAB = 300


def penalised(chunk: Chunk, logits: torch.Tensor) -> torch.Tensor:
    """Frequency and presence penalty as OpenAI documents them: there is no processor for them."""
    params, result = chunk.request.sampling, logits.clone()
    answer = chunk.history[len(chunk.request.prompt) :]
    for token in set(answer):
        result[0, token] -= torch.tensor(params.frequency_penalty) * answer.count(token)
        result[0, token] -= torch.tensor(params.presence_penalty)
    return result


def reference(chunk: Chunk, logits: torch.Tensor) -> torch.Tensor:
    """Logits [1, vocab] after everything that comes before temperature."""
    params, ids = chunk.request.sampling, torch.tensor([chunk.history])
    if params.logit_bias:
        bias: dict[tuple[int, ...], float] = {}
        for token, value in params.logit_bias:
            bias[(token,)] = bias.get((token,), 0.0) + value
        logits = SequenceBiasLogitsProcessor(bias)(ids, logits)
    if params.repetition_penalty != 1.0:
        logits = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, logits)
    logits = penalised(chunk, logits)
    if words := [list(word) for word in params.bad_words if word not in {(s,) for s in STOPS}]:
        logits = NoBadWordsLogitsProcessor(words, list(STOPS))(ids, logits)
    if params.min_tokens:
        prompt = len(chunk.request.prompt)
        logits = MinNewTokensLengthLogitsProcessor(prompt, params.min_tokens, list(STOPS))(
            ids, logits
        )
    if params.allowed_token_ids:
        allowed = torch.tensor(params.allowed_token_ids)
        only = torch.full_like(logits, float("-inf"))
        only[0, allowed] = logits[0, allowed]
        logits = only
    return logits


def ours(chunk: Chunk, logits: torch.Tensor) -> torch.Tensor:
    constraints = Constraints(chunk.request, chunk.history, logits.shape[1])
    constraints.advance()
    result = logits.clone()
    constrain(result, [constraints])
    return result


OFF = SamplingParams(temperature=0.0)

ONE_OPTION = [
    replace(OFF, logit_bias=((1, 4.0), (2, -100.0), (8, 100.0), (1, 0.5))),
    replace(OFF, repetition_penalty=1.7),
    replace(OFF, repetition_penalty=0.6),
    replace(OFF, frequency_penalty=1.1),
    replace(OFF, frequency_penalty=-2.0, presence_penalty=2.0),
    replace(OFF, presence_penalty=0.7),
    replace(OFF, bad_words=((5,), (3,))),
    replace(OFF, bad_words=((6, 5), (7, 6, 5), (5, 6, 5), (6, 6), (9,) * 60)),
    replace(OFF, min_tokens=4),
    replace(OFF, min_tokens=3),
    replace(OFF, allowed_token_ids=(4, 7, 200)),
]


@pytest.mark.parametrize("params", ONE_OPTION)
@pytest.mark.parametrize("answer", [(), (6,), (7, 6), (6, 5, 6), (6, 5, 5, 6)])
def test_one_option_equals_its_processor(params: SamplingParams, answer: tuple[int, ...]) -> None:
    chunk = make_chunk(params, prompt=(8, 1, 1), answer=answer)
    logits = random_logits(1, VOCAB)
    assert torch.equal(ours(chunk, logits), reference(chunk, logits))


def test_options_change_what_they_should() -> None:
    """The comparison above would also hold if nothing ever changed."""
    chunk = make_chunk(OFF, prompt=(8, 1, 1), answer=(6, 5, 6))
    logits = random_logits(1, VOCAB)
    for params in ONE_OPTION:
        changed = ours(chunk._replace(request=replace(chunk.request, sampling=params)), logits)
        assert torch.equal(changed, logits) == (params.min_tokens == 3), params


def test_all_options_together_equal_the_processors() -> None:
    source = random.Random(4)
    for index in range(400):
        chunk = random_chunk(source, VOCAB, index)
        logits = random_logits(1, VOCAB, seed=index)
        assert torch.equal(ours(chunk, logits), reference(chunk, logits)), chunk.request


def test_all_rows_at_once_equal_each_alone() -> None:
    source = random.Random(5)
    chunks = [random_chunk(source, VOCAB, index) for index in range(50)]
    logits = random_logits(50, VOCAB)
    together, rows = logits.clone(), [Constraints(c.request, c.history, VOCAB) for c in chunks]
    for row in rows:
        row.advance()
    constrain(together, [row if index % 3 else None for index, row in enumerate(rows)])
    for index, chunk in enumerate(chunks):
        alone = logits[index : index + 1]
        expected = ours(chunk, alone) if index % 3 else alone
        assert torch.equal(together[index : index + 1], expected)


def test_greedy_rows_have_constraints_too() -> None:
    """What a constrained greedy row answers is the argmax of the processed logits."""
    source, chunks = random.Random(6), []
    for index in range(100):
        chunk = random_chunk(source, VOCAB, index)
        greedy = replace(chunk.request.sampling, temperature=0.0)
        chunks.append(chunk._replace(request=replace(chunk.request, sampling=greedy)))
    logits = random_logits(100, VOCAB)
    tokens = Sampler().sample(logits, chunks)
    rows = zip(chunks, logits.split(1), strict=True)
    assert tokens == [int(reference(chunk, row).argmax()) for chunk, row in rows]
    assert tokens != logits.argmax(dim=-1).tolist()


def warped(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Which tokens [vocab] transformers' warpers keep."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0:
        warpers.append(MinPLogitsWarper(params.min_p))
    if params.typical_p < 1:
        warpers.append(TypicalLogitsWarper(params.typical_p))
    return warpers(torch.zeros(len(logits), 1, dtype=torch.long), logits)[0] > float("-inf")


def numbers_of(params: list[SamplingParams]) -> Numbers:
    return Numbers.of_rows(params, [0.0] * len(params), torch.device("cpu"))


def kept(logits: torch.Tensor, params: SamplingParams, count: int) -> torch.Tensor | None:
    """Which tokens [vocab] we keep, or None if `count` leaders do not suffice to tell."""
    scaled = (logits - logits.amax()) / params.temperature
    lead = filters.leaders(scaled, block_maxima(scaled), count)
    everyone, space = None, scaled.clone()
    if filters.needs_population(params):
        everyone = filters.population(scaled, lead.ids, space, with_entropy=params.typical_p < 1)
    mask, _, is_complete = filters.keep(lead, numbers_of([params]), everyone)
    if not is_complete:
        return None
    return torch.zeros_like(scaled, dtype=torch.bool).scatter_(1, lead.ids, mask)[0]


FILTERS = [
    SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical
    )
    for temperature in (0.3, 1.0, 1.7)
    for top_k in (0, 1, 5, 40, 250)
    for top_p in (0.05, 0.5, 0.95, 1.0)
    for min_p in (0.0, 0.02, 0.3)
    for typical in (1.0, 0.2, 0.9)
]


def test_kept_tokens_equal_transformers() -> None:
    """However many leaders are looked at: complete or not at all, and then the same."""
    num_complete = dict.fromkeys((8, 64, 299), 0)
    for index, params in enumerate(FILTERS):
        logits = random_logits(1, VOCAB, seed=index)
        expected = warped(logits, params)
        assert torch.equal(kept(logits, params, VOCAB), expected), params  # type: ignore[arg-type]
        for count in num_complete:
            found = kept(logits, params, count)
            if found is not None:
                num_complete[count] += 1
                assert torch.equal(found, expected), (count, params)
    assert num_complete[8] > len(FILTERS) / 3
    assert num_complete[64] > len(FILTERS) * 0.6


@pytest.mark.parametrize("shape", ["flat", "peaked", "banned"])
def test_kept_tokens_of_a_real_vocabulary(shape: str) -> None:
    """Few leaders, found by blocks, keep what a sort of the whole vocabulary keeps."""
    vocab = 151_936
    logits = random_logits(1, vocab)
    if shape == "peaked":
        order = torch.randperm(vocab, generator=torch.Generator().manual_seed(1))
        logits = -1.5 * torch.log1p(order.float()).unsqueeze(0)
    elif shape == "banned":
        logits[:, 100:] = float("-inf")
    num_quick = 0
    for params in (
        SamplingParams(top_k=50),
        SamplingParams(top_p=0.6),
        SamplingParams(temperature=0.5, top_p=0.9),
        SamplingParams(top_k=60, top_p=0.95, min_p=0.01, typical_p=0.9),
        SamplingParams(min_p=0.1),
        SamplingParams(typical_p=0.5),
    ):
        expected = kept(logits, params, vocab)
        assert expected is not None
        assert torch.equal(expected, warped(logits, params)), params
        for count in filters.leader_counts(vocab)[:-1]:
            found = kept(logits, params, count)
            num_quick += found is not None and count == filters.LEADER_COUNTS[0]
            assert found is None or torch.equal(found, expected)
    assert num_quick >= 3


def test_ties_with_the_last_one_kept_stay() -> None:
    """On coarse logits, by the definitions: a threshold, and all that reach it."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(100):
        logits = torch.randint(-4, 5, (1, 100), generator=generator) / 2
        shares = logits.double().softmax(dim=-1)[0]
        ordered = shares.sort(descending=True).values
        for params in (SamplingParams(top_k=9), SamplingParams(top_p=0.7)):
            before = ordered.cumsum(0) - ordered
            last = params.top_k or int((before < params.top_p - 1e-9).sum())
            expected = shares >= ordered[last - 1] * (1 - 1e-9)
            for count in (32, 100):
                found = kept(logits, params, count)
                assert found is None or torch.equal(found, expected)
            assert kept(logits, params, 100) is not None


def test_rows_with_different_options_do_not_mix() -> None:
    """`keep` decides many rows at once: each as alone."""
    for is_by_all in (True, False):
        params = [p for p in FILTERS if filters.needs_population(p) == is_by_all]
        scaled = random_logits(len(params), VOCAB)
        scaled -= scaled.amax(dim=-1, keepdim=True)
        lead = filters.leaders(scaled, block_maxima(scaled), 64)
        everyone, space = None, scaled.clone()
        if is_by_all:
            everyone = filters.population(scaled, lead.ids, space, with_entropy=True)
        together = filters.keep(lead, numbers_of(params), everyone)
        for index, own in enumerate(params):
            part = slice(index, index + 1)
            lead = filters.leaders(scaled[part], block_maxima(scaled[part]), 64)
            everyone = None
            if is_by_all:
                everyone = filters.population(
                    scaled[part], lead.ids, space[part], with_entropy=True
                )
            alone = filters.keep(lead, numbers_of([own]), everyone)
            assert bool(alone[2]) == bool(together[2][index])
            if alone[2]:
                assert torch.equal(alone[0][0], together[0][index])
                assert torch.equal(alone[1][0], together[1][index])


@pytest.mark.parametrize("looks", [(8, 64), ()], ids=["short", "full"])
def test_draws_are_inverse_transform_sampling(
    looks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what transformers leaves, in vocabulary order, by the number of the request's stream."""
    monkeypatch.setattr(filters, "LEADER_COUNTS", looks)
    chunks, expected = [], []
    logits = random_logits(len(FILTERS), VOCAB)
    for index, params in enumerate(FILTERS):
        answer = tuple(range(9, 9 + index % 5))
        params = replace(params, seed=index % 7, repetition_penalty=(1.0, 1.4)[index % 2])
        chunk = make_chunk(params, request_id=index, answer=answer)
        row = reference(chunk, logits[index : index + 1])
        scaled = (row / params.temperature).masked_fill(~warped(row, params), float("-inf"))
        sums = scaled.double().softmax(dim=-1).cumsum(dim=-1)
        number = torch.tensor([[uniform(index % 7, len(answer))]], dtype=torch.float64)
        expected.append(int(torch.searchsorted(sums, number * sums[:, -1:], right=True)))
        chunks.append(chunk)
    assert Sampler().sample(logits, chunks) == expected


@pytest.mark.parametrize("count", [128, 1024, 9000])
def test_leaders_are_the_first_of_a_sort(count: int) -> None:
    """Found by blocks or not; neighbours in one block must not hide each other."""
    rows = random_logits(2, 151_936)
    rows[1] = rows[1].sort().values
    lead = filters.leaders(rows, block_maxima(rows), count)
    assert torch.equal(lead.values, rows.sort(dim=-1, descending=True).values[:, :count])
    assert torch.equal(rows.gather(1, lead.ids), lead.values)
    assert torch.equal(lead.bound, lead.values[:, -1])
