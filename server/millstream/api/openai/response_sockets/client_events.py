"""What a client says over a WebSocket, checked. Pure.

Source: OpenAI's OpenAPI document, `ResponsesClientEvent`, and its SDK, which knows `generate` and
`response.steer` besides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from millstream.api.wire.error_bodies import shown
from millstream.errors import InvalidRequest
from millstream.intake.responses.request import ResponseRequest, parse_response_request

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")


@dataclass(frozen=True, slots=True)
class CreateEvent:
    """Asks for a response. stream_id: the lane it takes its turn in. body: its other fields."""

    stream_id: str | None
    body: dict[str, Any]

    @property
    def previous_id(self) -> str | None:
        """What it wants to go on from, whether or not it is asked well."""
        given = self.body.get("previous_response_id")
        return given if isinstance(given, str) else None

    def checked(self) -> tuple[ResponseRequest, bool]:
        """The request, and whether an answer is wanted or only the prompt computed.

        Raises InvalidRequest for a field that is wrong, or has no meaning over a WebSocket.
        """
        body = dict(self.body)
        generate = body.pop("generate", None)
        if generate is not None and not isinstance(generate, bool):
            raise InvalidRequest("generate: true or false", param="generate")
        if body.get("background"):
            raise InvalidRequest(
                "background: not over a WebSocket; with X-Resumable in the headers that opened it, "
                "answers go on without it",
                param="background",
                code="unsupported_parameter",
            )
        if body.get("stream") is False:
            raise InvalidRequest("stream: a WebSocket has only events", param="stream")
        return parse_response_request({**body, "stream": True}), generate is not False


@dataclass(frozen=True, slots=True)
class SteerEvent:
    """Wants to say something to an answer while it is made."""

    previous_id: str
    input: str | list[Any]


def client_event(fields: dict[str, Any]) -> CreateEvent | SteerEvent:
    """The event that a message is. Raises InvalidRequest; of the body itself nothing is checked."""
    kind = fields.get("type")
    if kind == "response.create":
        stream_id = fields.get("stream_id")
        if stream_id is not None and not (
            isinstance(stream_id, str) and _STREAM_ID.fullmatch(stream_id)
        ):
            raise InvalidRequest(
                "stream_id: 1 to 256 letters, digits, dots, hyphens or underscores",
                param="stream_id",
            )
        body = {name: value for name, value in fields.items() if name not in ("type", "stream_id")}
        return CreateEvent(stream_id, body)
    if kind == "response.steer":
        return _steer(fields)
    what = shown(kind) if isinstance(kind, str) else "none"
    raise InvalidRequest(
        f"type: response.create or response.steer, not {what}", param="type", code="unknown_event"
    )


def _steer(fields: dict[str, Any]) -> SteerEvent:
    for name in fields:
        if name not in ("type", "previous_response_id", "input"):
            raise InvalidRequest(
                f"{name} is not a field of this event", param=name, code="unknown_parameter"
            )
    previous_id, said = fields.get("previous_response_id"), fields.get("input")
    if not isinstance(previous_id, str):
        raise InvalidRequest("previous_response_id: a text", param="previous_response_id")
    if not isinstance(said, str | list):
        raise InvalidRequest("input: a text or a list of messages", param="input")
    return SteerEvent(previous_id, said)
