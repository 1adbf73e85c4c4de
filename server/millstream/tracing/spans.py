"""Which spans a request has.

Rule: nothing is traced while a request runs. Its times are kept anyway, so all its spans are made
at once when it has ended, and a token costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from millstream.metrics.ended_request import AnswerFacts, EndedRequest
from millstream.metrics.request_metrics import RequestLife

Value = str | int | float | tuple[str, ...]


class Part(NamedTuple):
    """A span below that of the request. began, ended: by `time.monotonic()`."""

    name: str
    began: float
    ended: float
    attributes: dict[str, Value]


def attributes_of(request: EndedRequest, *, model: str) -> dict[str, Value]:
    """What a request's span has: OpenTelemetry's conventions for HTTP servers and generative AI."""
    found: dict[str, Value] = {
        "http.request.method": request.method,
        "http.route": request.route,
        "millstream.request_id": request.request_id,
    }
    if request.status is not None:
        found["http.response.status_code"] = request.status
    if request.error is not None:
        found["error.type"] = request.error
    if request.answer is not None:
        found |= _answer_attributes(request.answer, request, model=model)
    return found


def parts_of(request: EndedRequest) -> Iterator[Part]:
    """What each answer went through, as far as it came: preparation, queue, prefill, decode."""
    lives = () if request.answer is None else request.answer.lives
    for choice, life in enumerate(lives):
        for name, began, ended in _phases(life, request.ended):
            yield Part(name, began, ended, {"millstream.choice": choice})


def _phases(life: RequestLife, end: float) -> Iterator[tuple[str, float, float]]:
    if life.sent is None:
        return
    yield "preparation", life.opened, life.sent
    if life.queue_seconds is None:
        yield "queue", life.sent, end
        return
    runs = life.sent + life.queue_seconds
    yield "queue", life.sent, runs
    if life.first_token is None:
        yield "prefill", runs, end
        return
    yield "prefill", runs, life.first_token
    yield "decode", life.first_token, life.last_token


def _answer_attributes(
    answer: AnswerFacts, request: EndedRequest, *, model: str
) -> dict[str, Value]:
    found: dict[str, Value] = {
        "gen_ai.provider.name": "millstream",
        "gen_ai.response.model": model,
        "gen_ai.response.id": answer.completion_id,
        "gen_ai.usage.input_tokens": answer.num_prompt,
        "gen_ai.usage.cache_read.input_tokens": answer.num_cached,
        "gen_ai.usage.output_tokens": answer.num_generated,
        "gen_ai.response.finish_reasons": tuple(answer.finish_reasons),
    }
    if answer.first_token is not None:
        found["gen_ai.response.time_to_first_chunk"] = answer.first_token - request.began
    return found
