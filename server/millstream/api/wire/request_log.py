"""One line in the log for each request: who it was, what it cost, how it ended.

    POST /v1/chat/completions 200 id=3f… owner=9c56… completion=chatcmpl-… prompt=31 cached=16
    answer=20 finish=stop queue=0.000s first=0.031s time=0.210s

Rules: nothing that a client wrote into its body, its key or its query is in a line, unless the
operator asks for bodies, which then have lines of their own; what is of its path and headers has no
blanks, so that it cannot look like another field. A line is written when the request has ended,
streams included, and then it is counted as well; while it is answered nothing is written or counted
here.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.types import Scope

from millstream.errors import MillstreamError
from millstream.metrics.ended_request import AnswerFacts, EndedRequest, Trace
from millstream.metrics.http_metrics import NO_ROUTE, HttpMetrics

T = TypeVar("T")

log = logging.getLogger("millstream.requests")
prompt_log = logging.getLogger("millstream.prompts")

CLIENT_LEFT = "client_left"
CLIENT_STOPPED_READING = "client_stopped_reading"

_SAFE = "/:@!$&'()*+,;[]~"
_MAX_SHOWN = 120
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")
_ORIGINS_FLAG = "--allowed-origins"
_TRACE_HEADERS = ("traceparent", "tracestate")
_OWNER_LENGTH = 8

LABEL_STATE = "millstream_label"
"""Where the state of a request has what the operator calls its key."""


class RequestRecord:
    """What is known of one request. Handlers find it as `request.state.record`.

    answer: tells of the answer, if one was begun. ending: what broke the request off. route: the
    template of the path, once that is known. is_for_answer: whether it asks for one.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        request_id: str,
        is_probe: bool,
        metrics: HttpMetrics,
        trace: Trace | None = None,
    ) -> None:
        """is_probe: asked every few seconds by a machine, so not worth a line if it goes well.
        trace: hears of the request when it has ended."""
        self._method, self._path = scope.get("method", "GET"), scope["path"]
        self._headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._request_id = request_id
        self._is_probe = is_probe
        self._metrics, self._trace = metrics, trace
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self._began = time.monotonic()
        self._status: int | None = None
        self._error: MillstreamError | None = None
        self._is_broken_off = self._is_begun = False
        self._refused_origin: str | None = None
        self.answer: Callable[[], AnswerFacts] | None = None
        self.ending: str | None = None
        self.route = NO_ROUTE
        self.is_for_answer = False

    @property
    def error(self) -> MillstreamError | None:
        """What the answer says went wrong."""
        return self._error

    def begin(self, answer: Callable[[], AnswerFacts] | None = None) -> None:
        """Notes that the engine has all that was asked for: an error is no refusal from here on."""
        self._is_begun = True
        self.answer = answer or self.answer

    def respond(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Notes that the answer begins with this. headers: None where no page can be refused."""
        if self._is_broken_off:
            return
        self._status = status
        if headers is not None and "access-control-allow-origin" not in headers:
            self._refused_origin = foreign_origin(self._headers)

    def fail(self, error: MillstreamError) -> None:
        """Notes what the answer says went wrong."""
        self._error = error

    def break_off(self, error: MillstreamError) -> None:
        """Notes that the connection itself has refused the rest of the request."""
        self.ending = error.code
        if self._status is None:
            self._status, self._error, self._is_broken_off = error.status, error, True

    def logging(self, check: Callable[[dict[str, Any]], T]) -> Callable[[dict[str, Any]], T]:
        """Has a line written with what is checked, if it asks for an answer: for --log-prompts."""

        def logged(body: dict[str, Any]) -> T:
            log_prompt(body, request_id=self._request_id)
            return check(body)

        return logged if self.is_for_answer else check

    def write(self) -> None:
        """Counts the request, and writes its line. Called once, when it has ended."""
        ended = time.monotonic()
        facts = None if self.answer is None else self.answer()
        self._count(ended)
        if self._trace is not None and not self._is_probe:
            self._trace(self._ended(facts, ended))
        is_well = self._is_probe and self._status in (200, 503) and self._refused_origin is None
        level = logging.DEBUG if is_well else logging.INFO
        if not log.isEnabledFor(level):
            return
        path, fields = shown(self._path), list(self._fields(facts, ended))
        text = " ".join(f"{name}={_as_text(value)}" for name, value in fields)
        members = {"method": self._method, "path": path, "status": self._status}
        members |= {_with_unit(name, value): value for name, value in fields}
        extra = {"fields": members}
        log.log(level, "%s %s %s %s", self._method, path, self._status or "-", text, extra=extra)

    def _ended(self, facts: AnswerFacts | None, ended: float) -> EndedRequest:
        headers = ((name, self._headers.get(name.encode())) for name in _TRACE_HEADERS)
        return EndedRequest(
            method=self._method,
            route=self.route,
            status=self._status,
            request_id=self._request_id,
            began=self._began,
            ended=ended,
            error=self._ending(facts),
            trace={name: value.decode("latin-1") for name, value in headers if value},
            answer=facts,
        )

    def _ending(self, facts: AnswerFacts | None) -> str | None:
        error = None if self._error is None else self._error.code
        return self.ending or error or (None if facts is None else facts.ending)

    def _count(self, ended: float) -> None:
        seconds = ended - self._began
        self._metrics.on_response(self._method, self.route, status=self._status, seconds=seconds)
        if self._error is not None and not self._is_begun:
            self._metrics.on_refused(self._error.code, is_for_answer=self.is_for_answer)

    def _fields(self, facts: AnswerFacts | None, ended: float) -> Iterator[tuple[str, object]]:
        yield "id", self._request_id
        if owner := self._state.get("tenant"):
            yield "owner", self._state.get(LABEL_STATE) or owner[:_OWNER_LENGTH]
        if facts is not None:
            yield from self._facts(facts)
        error = self._error
        if ending := self._ending(facts):
            yield "error", ending
        if error is not None and error.param and _FIELD_NAME.fullmatch(error.param):
            yield "param", error.param
        if self._refused_origin is not None:
            yield "refused_origin", shown(self._refused_origin)
        flag = _ORIGINS_FLAG if self._refused_origin is not None else error and error.flag
        if flag:
            yield "flag", flag
        yield "time", ended - self._began

    def _facts(self, facts: AnswerFacts) -> Iterator[tuple[str, object]]:
        yield "completion", facts.completion_id
        yield "prompt", facts.num_prompt
        yield "cached", facts.num_cached
        yield "answer", facts.num_generated
        if facts.finish_reasons:
            yield "finish", list(facts.finish_reasons)
        if facts.queue_seconds is not None:
            yield "queue", facts.queue_seconds
        if facts.first_token is not None:
            yield "first", facts.first_token - self._began


def _as_text(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.3f}s"
    return ",".join(value) if isinstance(value, list) else value


def _with_unit(name: str, value: object) -> str:
    """What a field is called where its value is a bare number: floats are seconds."""
    return f"{name}_seconds" if isinstance(value, float) else name


def record_of(scope: Scope) -> RequestRecord | None:
    """The record of a request; None where none is kept."""
    state: dict[str, Any] = scope.get("state", {})
    return state.get("record")


def log_unread(error: MillstreamError, metrics: HttpMetrics) -> None:
    """Counts a connection that was refused before it had a request, and writes its line."""
    metrics.on_refused(error.code, is_for_answer=False)
    fields = {"status": error.status, "error": error.code}
    log.info("- - %d error=%s", error.status, error.code, extra={"fields": fields})


def log_prompt(body: dict[str, Any], *, request_id: str) -> None:
    """Writes a line with all that a client sent to be answered."""
    fields = {"id": request_id, "body": body}
    prompt_log.info("id=%s body=%s", request_id, json.dumps(body), extra={"fields": fields})


def shown(text: str) -> str:
    """What a line has of a client's own text: its beginning, without blanks or controls."""
    return quote(text[:_MAX_SHOWN], safe=_SAFE) or "-"


def foreign_origin(headers: Mapping[bytes, bytes]) -> str | None:
    """The origin of the page that a browser asks for, unless that page is this server's own."""
    origin = headers.get(b"origin")
    if origin is None or headers.get(b"sec-fetch-site") == b"same-origin":
        return None
    if origin.partition(b"://")[2] == headers.get(b"host"):
        return None
    return origin.decode("latin-1")
