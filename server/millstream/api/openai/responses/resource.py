"""The response object: what was asked, what came of it, and how it stands."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from millstream.errors import ContextTooLong, MillstreamError, Overloaded

ResponseStatus = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]

_CODES: dict[type[MillstreamError], str] = {
    # Words of the API that programs switch on (Codex tells its user, or tries again).
    Overloaded: "rate_limit_exceeded",
    ContextTooLong: "context_length_exceeded",
}


def response_error(error: MillstreamError) -> dict[str, Any]:
    """The value of `error` in a response that failed."""
    message = error.message
    if isinstance(error, Overloaded):
        message += f"; try again in {error.retry_after or 1}s"
    return {"code": _CODES.get(type(error), error.code), "message": message}


def response_usage(
    *, num_prompt: int, num_cached: int, num_generated: int, num_reasoning: int
) -> dict[str, Any]:
    """Tokens. What is cached costs nothing to write, so none are counted for it."""
    return {
        "input_tokens": num_prompt,
        "input_tokens_details": {"cached_tokens": num_cached, "cache_write_tokens": 0},
        "output_tokens": num_generated,
        "output_tokens_details": {"reasoning_tokens": num_reasoning},
        "total_tokens": num_prompt + num_generated,
    }


class ResponseResource:
    """One response object while it comes to be.

    echo: what it repeats of the request. created: seconds since the epoch.
    """

    def __init__(
        self, response_id: str, *, model: str, created: int, echo: Mapping[str, Any]
    ) -> None:
        self.id = response_id
        self.created = created
        self.status: ResponseStatus = "in_progress"
        self._fields: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": created,
            "completed_at": None,
            "status": self.status,
            "error": None,
            "incomplete_details": None,
            "model": model,
            **echo,
            "usage": None,
        }

    def turn(self, status: ResponseStatus) -> None:
        """Notes that it runs, or waits."""
        self.status = self._fields["status"] = status

    def end(
        self,
        status: ResponseStatus,
        *,
        usage: Mapping[str, Any] | None,
        error: MillstreamError | None = None,
    ) -> None:
        """Notes how it ended; the last that is said of it holds."""
        self.turn(status)
        self._fields["usage"] = usage
        self._fields["completed_at"] = int(time.time()) if status == "completed" else None
        is_cut = status == "incomplete"
        self._fields["incomplete_details"] = {"reason": "max_output_tokens"} if is_cut else None
        if error is not None and status == "failed":
            self._fields["error"] = response_error(error)

    def without_output(self) -> dict[str, Any]:
        """The object as it is stored: its output is stored as items."""
        return dict(self._fields)

    def shown(self, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The object with this output."""
        return with_output(self._fields, output)


def with_output(resource: Mapping[str, Any], output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A stored object, complete."""
    return {**resource, "output": list(output)}
