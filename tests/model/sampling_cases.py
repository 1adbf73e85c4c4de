"""Chunks and random sampling options for tests of the sampler."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from millstream.core.plan import Chunk
from millstream.core.request import Request, SamplingParams

STOPS = (3, 4)


def make_chunk(
    params: SamplingParams,
    *,
    request_id: int = 0,
    prompt: tuple[int, ...] = (1, 2),
    answer: tuple[int, ...] = (),
    stop_token_ids: tuple[int, ...] = STOPS,
) -> Chunk:
    request = Request(
        id=request_id,
        prompt=prompt,
        sampling=params,
        max_tokens=1000,
        stop_token_ids=stop_token_ids,
    )
    history = [*prompt, *answer]
    return Chunk(request, history[-1:], len(history) - 1, [], history, is_last=True)


def random_params(source: random.Random, vocab: int) -> SamplingParams:
    """Each option is off in half of all cases, and in some all that touch logits are."""

    def maybe(value: float, otherwise: float) -> float:
        return value if source.random() < 0.5 else otherwise

    def some_ids(count: int) -> list[int]:
        return [source.randrange(vocab) for _ in range(count)]

    words = [tuple(some_ids(source.randint(1, 3))) for _ in range(3)]
    params = SamplingParams(
        temperature=source.choice([0.0, 0.3, 1.0, 1.0, 2.5]),
        top_k=int(maybe(source.choice([1, 3, 20, 200, vocab, 10 * vocab]), 0)),
        top_p=maybe(source.choice([0.05, 0.5, 0.9, 0.999]), 1.0),
        min_p=maybe(source.choice([0.001, 0.1, 1.0]), 0.0),
        typical_p=maybe(source.choice([0.1, 0.5, 0.95]), 1.0),
        repetition_penalty=maybe(source.choice([0.8, 1.3, 2.0]), 1.0),
        frequency_penalty=maybe(source.uniform(-2, 2), 0.0),
        presence_penalty=maybe(source.uniform(-2, 2), 0.0),
        logit_bias=tuple((i, source.uniform(-9, 9)) for i in some_ids(int(maybe(4, 0)))),
        bad_words=tuple(words) if source.random() < 0.5 else (),
        allowed_token_ids=tuple(some_ids(40)) if source.random() < 0.2 else (),
        min_tokens=source.choice([0, 0, 5, 50]),
        seed=source.randrange(2**64),
        logprobs=source.choice([None, None, 0, 1, 20]),
    )
    return without_constraints(params) if source.random() < 0.4 else params


def without_constraints(params: SamplingParams) -> SamplingParams:
    return replace(
        params,
        repetition_penalty=1.0,
        frequency_penalty=0.0,
        presence_penalty=0.0,
        logit_bias=(),
        bad_words=(),
        allowed_token_ids=(),
        min_tokens=0,
    )


def random_chunk(source: random.Random, vocab: int, request_id: int) -> Chunk:
    """Tokens repeat, so that penalties count and bad words are completed."""
    few = [source.randrange(vocab) for _ in range(12)]
    prompt = tuple(source.choices(few, k=source.randint(1, 30)))
    answer = tuple(source.choices(few, k=source.randint(0, 30)))
    params = random_params(source, vocab)
    return make_chunk(params, request_id=request_id, prompt=prompt, answer=answer)


def random_logits(rows: int, vocab: int, *, seed: int = 3) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3
