"""Errors as clients of Text Generation Inference read them.

Source: TGI 3.3.6, `router/src/server.rs` and `router/src/infer/mod.rs`. The error is a text there,
and `error_type` says which exception a client raises.
"""

from __future__ import annotations

import json

from starlette.types import Scope
from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed
from millstream.errors import GenerationFailed, MillstreamError, Overloaded, RequestCancelled


@closed
class TgiErrorBody(TypedDict):
    """What refusals and failures of TGI's routes look like."""

    error: str
    error_type: str


_PATHS = frozenset(
    {"/generate", "/generate_stream", "/invocations", "/vertex", "/chat_tokenize", "/info"}
)
_MARK = "speaks_tgi"


def mark_tgi(scope: Scope) -> None:
    """Notes of a request to a route of several dialects that it is in this one."""
    scope.setdefault("state", {})[_MARK] = True


def speaks_tgi(scope: Scope) -> bool:
    """Whether the client knows this API: by the route, or by what a handler found."""
    if scope.get("state", {}).get(_MARK):
        return True
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in _PATHS or (path == "/" and scope.get("method") == "POST")


def tgi_status(error: MillstreamError) -> int:
    """The status of a refusal or failure, which differs for what is wrong in a body."""
    if error.status == 400:
        return 422
    if isinstance(error, GenerationFailed):
        return 424
    return 500 if isinstance(error, RequestCancelled) else error.status


def tgi_error_body(error: MillstreamError) -> TgiErrorBody:
    """The body of a refusal or failure."""
    message = error.message
    if isinstance(error, Overloaded):
        message = "Model is overloaded"
    elif isinstance(error, RequestCancelled):
        message = f"Incomplete generation: {message}"
    elif isinstance(error, GenerationFailed):
        message = f"Request failed during generation: {message}"
    elif tgi_status(error) == 422:
        message = f"Input validation error: {message}"
    return {"error": message, "error_type": error.error_type}


def tgi_error_event(error: MillstreamError) -> bytes:
    """The last event of a stream that failed after it began."""
    return b"data: " + json.dumps(tgi_error_body(error)).encode() + b"\n\n"
