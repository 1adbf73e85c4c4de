"""Log probabilities as JSON: OpenAI's `logprobs.content`, vLLM's `prompt_logprobs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millstream.core.request import TokenLogprob
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary

_LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have; the number that vLLM sends."""


def finite(logprob: float) -> float:
    return max(logprob, _LOWEST)


def content_logprobs(tokens: Iterable[TextLogprob], vocabulary: Vocabulary) -> dict[str, Any]:
    """The value of a choice's `logprobs`."""
    content = []
    for text, raw, score in tokens:
        top = [
            _entry(text, raw, number)
            if token_id == score.token_id
            else _entry(*vocabulary[token_id], number)
            for token_id, number in score.top
        ]
        content.append(_entry(text, raw, score.logprob) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def prompt_logprobs(scores: Iterable[TokenLogprob], vocabulary: Vocabulary) -> list[Any]:
    """One object per prompt token, keyed by token id; null for the first: nothing predicts it."""
    return [None, *(_ranked(score, vocabulary) for score in scores)]


def _entry(text: str, raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text, "bytes": list(raw), "logprob": finite(logprob)}


def _ranked(score: TokenLogprob, vocabulary: Vocabulary) -> dict[str, Any]:
    numbers = [(score.token_id, score.logprob, score.rank)]
    numbers += [
        (token_id, number, rank)
        for rank, (token_id, number) in enumerate(score.top, 1)
        if token_id != score.token_id
    ]
    return {
        str(token_id): {
            "logprob": finite(number),
            "rank": rank,
            "decoded_token": vocabulary[token_id].text,
        }
        for token_id, number, rank in numbers
    }
