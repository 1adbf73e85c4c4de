"""What is known of an HTTP request, or of a message over a WebSocket, when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from millstream.metrics.request_metrics import RequestLife


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """What an answer came to, or what of it there was when it ended.

    num_prompt, num_cached, num_generated: tokens. finish_reasons: of the choices that are complete.
    queue_seconds: how long the engine let it wait; None if it never ran. first_token: when that
    came, by `time.monotonic()`. ending: an error's code, or `client_left`; None if it is complete.
    lives: of its choices.
    """

    completion_id: str
    num_prompt: int
    num_cached: int
    num_generated: int
    finish_reasons: Sequence[str]
    queue_seconds: float | None
    first_token: float | None
    ending: str | None
    lives: Sequence[RequestLife] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRequest:
    """began, ended: by `time.monotonic()`. route: the template of its path. status: None where the
    client left before any. error: a code. trace: the headers `traceparent` and `tracestate`, if the
    client sent them. answer: if one was begun."""

    method: str
    route: str
    status: int | None
    request_id: str
    began: float
    ended: float
    error: str | None
    trace: dict[str, str]
    answer: AnswerFacts | None


Trace: TypeAlias = Callable[[EndedRequest], None]
"""Hears of a request when it has ended."""
