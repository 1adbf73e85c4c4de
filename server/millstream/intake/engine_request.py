"""From a checked body to what the engine is asked: the part of checking that needs the model."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

from millstream.core.request import Grammar, Request, SamplingParams
from millstream.core.status import EngineInfo
from millstream.errors import InvalidRequest
from millstream.intake.sampling_fields import SamplingFields

T = TypeVar("T")

_COLDEST = 1e-4
"""Temperatures below are greedy: divided by less, the difference of two logits is infinite."""


def sampling_params(
    fields: SamplingFields,
    info: EngineInfo,
    *,
    seed: int,
    logprobs: int | None = None,
    bad_words: tuple[tuple[int, ...], ...] = (),
) -> SamplingParams:
    """The request's sampling, with the model's recommendations where it says nothing."""
    defaults = info.defaults
    temperature = _given(fields.temperature, defaults.temperature)
    return SamplingParams(
        temperature=0.0 if temperature < _COLDEST else temperature,
        # No more than there are tokens: the protocol's integers end at 64 bits, JSON's do not.
        top_k=min(max(_given(fields.top_k, defaults.top_k), 0), info.vocab_size),
        top_p=_given(fields.top_p, defaults.top_p),
        min_p=_given(fields.min_p, defaults.min_p),
        typical_p=_given(fields.typical_p, defaults.typical_p),
        repetition_penalty=_given(fields.repetition_penalty, defaults.repetition_penalty),
        frequency_penalty=fields.frequency_penalty or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        logit_bias=tuple((int(key), value) for key, value in (fields.logit_bias or {}).items()),
        bad_words=bad_words,
        allowed_token_ids=tuple(dict.fromkeys(fields.allowed_token_ids or ())),
        min_tokens=fields.min_tokens or 0,
        seed=seed,
        logprobs=logprobs,
    )


def engine_request(
    fields: SamplingFields,
    info: EngineInfo,
    *,
    request_id: int,
    prompt: tuple[int, ...],
    wanted: int | None,
    room: int,
    logprobs: int | None,
    bad_words: Iterable[tuple[int, ...]],
    end_of_turn: Iterable[int],
) -> Request:
    """What the engine is asked. wanted, room: tokens asked for, and those there may be.

    Raises InvalidRequest for fields that this prompt or this model leave no room for.
    """
    sampling = sampling_params(
        fields,
        info,
        seed=first_seed(fields),
        logprobs=logprobs,
        bad_words=tuple(dict.fromkeys(bad_words)),
    )
    stops = stop_token_ids(fields, model=end_of_turn)
    check_something_is_allowed(sampling, stops)
    return Request(
        id=request_id,
        prompt=prompt,
        sampling=sampling,
        max_tokens=answer_length(fields, wanted=wanted, room=room),
        stop_token_ids=stops,
        priority=fields.priority or 0,
        cache_salt=fields.cache_salt or "",
        prompt_logprobs=fields.prompt_logprobs,
    )


def choice_request(first: Request, request_id: int, index: int, *, follows: int | None) -> Request:
    """The request of one of several answers to a prompt. Only the first reports on the prompt."""
    sampling = first.sampling
    return replace(
        first,
        id=request_id,
        sampling=replace(sampling, seed=choice_seed(sampling.seed, index)),
        prompt_logprobs=None if index else first.prompt_logprobs,
        follows=follows,
    )


def with_grammar(request: Request, grammar: Grammar | None, fields: SamplingFields) -> Request:
    """The request, with the form of its answer. Raises InvalidRequest if nothing could end it."""
    if grammar is not None and not request.stop_token_ids:
        raise InvalidRequest(
            "an answer with a format needs a token that ends it: stop_token_ids, or the "
            "model's own without ignore_eos",
            param="ignore_eos" if fields.ignore_eos else "stop_token_ids",
        )
    return replace(request, grammar=grammar)


def stop_token_ids(fields: SamplingFields, *, model: Iterable[int]) -> tuple[int, ...]:
    """What ends the answer: the model's end-of-turn tokens, unless ignored, and the request's."""
    ours = () if fields.ignore_eos else model
    return tuple(dict.fromkeys([*ours, *(fields.stop_token_ids or ())]))


def first_seed(fields: SamplingFields) -> int:
    return secrets.randbits(64) if fields.seed is None else fields.seed % 2**64


def choice_seed(seed: int, index: int) -> int:
    """The seed of one of several answers; the first one's is the request's own."""
    if index == 0:
        return seed
    digest = blake2b(struct.pack("<QQ", seed, index), digest_size=8, person=b"choice").digest()
    return int.from_bytes(digest, "little")


def check_token_ids(fields: SamplingFields, *, vocab_size: int) -> None:
    """Raises InvalidRequest for a token the model does not have."""
    named = {
        "logit_bias": map(int, fields.logit_bias or ()),
        "allowed_token_ids": fields.allowed_token_ids or (),
        "stop_token_ids": fields.stop_token_ids or (),
    }
    for name, ids in named.items():
        largest = max(ids, default=0)
        if largest >= vocab_size:
            raise InvalidRequest(
                f"{name}: {largest} is not a token of this model, which has {vocab_size}",
                param=name,
            )


def check_something_is_allowed(params: SamplingParams, stop_token_ids: Sequence[int]) -> None:
    """Raises InvalidRequest if allowed_token_ids leaves nothing for the first token."""
    if not params.allowed_token_ids:
        return
    forbidden = {word[0] for word in params.bad_words if len(word) == 1}
    if params.min_tokens:
        forbidden.update(stop_token_ids)
    if forbidden.issuperset(params.allowed_token_ids):
        raise InvalidRequest(
            "allowed_token_ids: min_tokens or bad_words forbid all of them",
            param="allowed_token_ids",
        )


def answer_length(fields: SamplingFields, *, wanted: int | None, room: int) -> int:
    """Tokens the answer may have: what was asked for, at most the room for it.

    Raises InvalidRequest if min_tokens do not fit.
    """
    if (fields.min_tokens or 0) > room:
        raise InvalidRequest(
            f"min_tokens is {fields.min_tokens}, but the answer to this prompt may have only "
            f"{room} tokens",
            param="min_tokens",
        )
    return min(wanted or room, room)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
