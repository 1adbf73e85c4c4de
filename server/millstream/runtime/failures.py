"""From what the engine says of a failed request to the error that its caller gets."""

from __future__ import annotations

from millstream.core.request import FailureEvent
from millstream.errors import (
    ContextTooLong,
    GenerationFailed,
    InvalidRequest,
    MillstreamError,
    Overloaded,
)


def error_of(failure: FailureEvent) -> MillstreamError:
    """The error by the event's code; codes that say nothing about the request are failures."""
    if failure.code == ContextTooLong.code:
        return ContextTooLong(failure.message, param="messages")
    if failure.code == Overloaded.code:
        return Overloaded(failure.message)
    if failure.code == "no_token_allowed":
        return InvalidRequest(failure.message, code=failure.code)
    return GenerationFailed(failure.message, code=failure.code)
