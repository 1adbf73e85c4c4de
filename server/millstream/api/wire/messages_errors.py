"""Errors as clients of the Messages API read them.

Source: Anthropic's SDK, `types/shared`, and what Claude Code was seen to understand: it takes the
two numbers from "prompt is too long" and shortens the conversation.
"""

from __future__ import annotations

import json
from typing import Literal

from starlette.types import Scope
from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed
from millstream.errors import ContextTooLong, MillstreamError, Overloaded

OVERLOADED_STATUS = 529


@closed
class MessagesErrorObject(TypedDict):
    type: str
    message: str


@closed
class MessagesErrorBody(TypedDict):
    """What refusals and failures of the Messages API look like."""

    type: Literal["error"]
    error: MessagesErrorObject
    request_id: str


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED_STATUS: "overloaded_error",
}
"""Status -> type; all others of the client are invalid requests, all others of ours api_error."""


def speaks_messages(scope: Scope, *, root_path: str | None = None) -> bool:
    """Whether the client knows this API: by the route, or by the header that its SDKs send.

    root_path: for those to whom the scope does not say it yet.
    """
    root = scope.get("root_path", "") if root_path is None else root_path
    path: str = scope["path"].removeprefix(root)
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return True
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def messages_status(error: MillstreamError) -> int:
    """The status of a refusal or failure, which differs for a server that is full."""
    return OVERLOADED_STATUS if isinstance(error, Overloaded) else error.status


def messages_error_body(error: MillstreamError, *, request_id: str) -> MessagesErrorBody:
    """The body of a refusal or failure."""
    status = messages_status(error)
    other = "invalid_request_error" if status < 499 else "api_error"
    message = error.message
    if isinstance(error, ContextTooLong) and error.num_tokens is not None:
        message = f"prompt is too long: {error.num_tokens} tokens > {error.limit} maximum"
    elif error.param is not None and error.param not in message:
        message = f"{error.param}: {message}"
    return {
        "type": "error",
        "error": {"type": _TYPES.get(status, other), "message": message},
        "request_id": request_id,
    }


def messages_error_event(error: MillstreamError, *, request_id: str) -> bytes:
    """The last event of a stream that failed after it began."""
    body = messages_error_body(error, request_id=request_id)
    return f"event: error\ndata: {json.dumps(body)}\n\n".encode()
