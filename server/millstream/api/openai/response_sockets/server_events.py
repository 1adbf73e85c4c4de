"""What the server says over a WebSocket: the events of responses, and of what failed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from millstream.api.openai.response_sockets.client_events import SteerEvent
from millstream.api.wire.error_bodies import error_body
from millstream.errors import MillstreamError

_DATA = b"data: "
_END = b"\n\n"


def event_texts(frames: bytes, *, stream_id: str | None) -> Iterator[str]:
    """The data of server-sent events, one by one, each with its lane."""
    lane = "}" if stream_id is None else f',"stream_id":"{stream_id}"}}'
    at = 0
    while at < len(frames):
        end = frames.index(_END, at)
        data = frames[frames.index(_DATA, at) + len(_DATA) : end - 1]
        at = end + len(_END)
        yield data.decode() + lane


def error_text(error: MillstreamError, *, stream_id: str | None) -> str:
    """The event that says what went wrong."""
    payload: dict[str, Any] = dict(error_body(error)["error"])
    if error.retry_after is not None:
        payload["headers"] = {"retry-after": str(error.retry_after)}
    event: dict[str, Any] = {"type": "error", "status": error.status, "error": payload}
    return json.dumps(event if stream_id is None else event | {"stream_id": stream_id})


def not_steered_text(event: SteerEvent) -> str:
    """The event that says that an answer cannot be steered, with what was to be said to it."""
    return json.dumps(
        {
            "type": "response.steer.failed",
            "sequence_number": 0,
            "steer": {"previous_response_id": event.previous_id, "input": event.input},
            "error": {
                "type": "invalid_request_error",
                "code": "steering_not_supported",
                "message": "answers of this server cannot be steered; send the input in the next "
                "response.create",
            },
        }
    )
