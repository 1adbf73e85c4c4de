"""From error to response: one table, rendered for HTTP and for a stream that has begun.

The body serves two families of clients at once: `error` is OpenAI's object, `error_type` is what
Text Generation Inference clients map to exceptions (huggingface_hub: OverloadedError, ...). Clients
of the Messages API get its own, whoever refuses them, and so do those of TGI's own routes.
"""

from __future__ import annotations

import json
import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed
from millstream.api.wire.messages_errors import (
    MessagesErrorBody,
    messages_error_body,
    messages_status,
    speaks_messages,
)
from millstream.api.wire.request_log import record_of
from millstream.api.wire.tgi_errors import TgiErrorBody, speaks_tgi, tgi_error_body, tgi_status
from millstream.errors import (
    InvalidRequest,
    MethodNotAllowed,
    MillstreamError,
    NotFound,
    OutOfMemory,
    ShuttingDown,
    Unauthorized,
)

log = logging.getLogger(__name__)


@closed
class ErrorObject(TypedDict):
    """param: the path of the field that is wrong. code: what programs switch on."""

    message: str
    type: str
    param: str | None
    code: str


@closed
class ErrorBody(TypedDict):
    """What every refusal and failure looks like."""

    error: ErrorObject
    error_type: str


_MAX_SHOWN = 200


def shown(text: str) -> str:
    """What of a client's own text is repeated in an error message: its beginning, quoted."""
    return repr(text[:_MAX_SHOWN])


def error_body(error: MillstreamError) -> ErrorBody:
    """The dual error body."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        },
        "error_type": error.error_type,
    }


_EVENTS_MARK = "has_error_events"


def mark_error_events(scope: Scope) -> None:
    """Lets this request's error be a stream with one event, after a status of success."""
    scope.setdefault("state", {})[_EVENTS_MARK] = True


class ErrorResponse(JSONResponse):
    """The response that says what went wrong, to the client and to the request's record."""

    def __init__(self, error: MillstreamError, headers: dict[str, str]) -> None:
        super().__init__(error_body(error), status_code=error.status, headers=headers)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (record := record_of(scope)) is not None:
            record.fail(self._error)
        if speaks_messages(scope):
            request_id = scope.get("state", {}).get("request_id", "")
            self._rewrite(
                messages_status(self._error),
                messages_error_body(self._error, request_id=request_id),
            )
        elif speaks_tgi(scope):
            self._rewrite(tgi_status(self._error), tgi_error_body(self._error))
        elif scope.get("state", {}).get(_EVENTS_MARK):
            self.status_code, self.body = 200, error_event(self._error)
            self.headers["content-type"] = "text/event-stream; charset=utf-8"
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)

    def _rewrite(self, status: int, body: MessagesErrorBody | TgiErrorBody) -> None:
        self.status_code = status
        self.body = self.render(body)
        self.headers["content-length"] = str(len(self.body))


def error_response(error: MillstreamError) -> ErrorResponse:
    """A whole response, for errors known before a stream begins."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, ShuttingDown):
        headers["Connection"] = "close"
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return ErrorResponse(error, headers)


def error_event(error: MillstreamError) -> bytes:
    """The last event of a stream that failed after it began. No `[DONE]` follows."""
    return b"data: " + json.dumps(error_body(error)).encode() + b"\n\n"


async def handle_millstream_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MillstreamError)
    return error_response(error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no route, wrong method) in our shape."""
    assert isinstance(error, HTTPException)
    # Not from request.url, which has what the client says its host is.
    where = f"{request.method} {request.scope['path']}"
    if error.status_code == 404:
        return error_response(NotFound(f"there is no route {where}"))
    if error.status_code == 405:
        response = error_response(MethodNotAllowed(f"{where}: method not allowed"))
        response.headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
        return response
    refusal = InvalidRequest(str(error.detail))
    refusal.status = error.status_code
    return error_response(refusal)


def _allowed_methods(request: Request) -> set[str]:
    """The methods of all routes with this path; Starlette's own header has those of the first.

    Whatever else fits the path takes it for an id.
    """
    fitting = [r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE]
    return {method for r in fitting if r.path == fitting[0].path for method in r.methods}


async def handle_unexpected(request: Request, error: Exception) -> Response:
    """Last resort: no memory, or a bug here. The log has the traceback, the client no internals."""
    if isinstance(error, MemoryError):
        return error_response(OutOfMemory("the server has no memory left for this request"))
    return error_response(MillstreamError("the server failed to handle this request"))
