"""What a client says in a frame, checked. Pure.

Source: llm-token-stream, whose frames are `{"id", "text"}`. The other fields are ours, and have the
names that chat completions give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

from millstream.errors import InvalidRequest
from millstream.intake.responses.request import ResponseRequest, parse_response_request
from millstream.intake.sampling_fields import DrawingFields

NEW = "new"
"""The conversation or chat of a message that begins one."""

_MAX_ID_LENGTH = 256
_MAX_ID = 2**63
_SAME = frozenset(
    {*DrawingFields.model_fields, "chat_template_kwargs", "instructions", "model", "timeout"}
)
"""Fields that a response has under the same name."""
_PATHS = {
    "text": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
}
"""What a frame calls a field -> its path in a response."""
CONVERSATION, CHAT = "conversation", "chat"
PLACES = (CONVERSATION, CHAT)
"""Fields that say where a message is said."""
_CANCEL = "cancel"


class SaidIn(NamedTuple):
    """A conversation or a chat. kind: one of PLACES. id: or NEW."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """One frame, of which only the id is known to be right. body: its other fields."""

    id: int | str
    body: dict[str, Any]

    def is_cancel(self) -> bool:
        """Whether it ends the answers to its id, and asks for none. Raises InvalidRequest."""
        if _CANCEL not in self.body:
            return False
        if self.body[_CANCEL] is not True:
            raise InvalidRequest("cancel: true, or left out", param=_CANCEL)
        for name in self.body:
            if name != _CANCEL:
                raise InvalidRequest(f"{name}: not together with cancel", param=name)
        return True

    def said_in(self, default: SaidIn | None) -> SaidIn | None:
        """What it is said in; None if it is said by itself.

        default: what is meant if nothing is named. Raises InvalidRequest.
        """
        named = [name for name in PLACES if name in self.body]
        for name in named:
            given = self.body[name]
            if given is not None and not isinstance(given, str):
                raise InvalidRequest(f"{name}: an id, '{NEW}' or null", param=name)
        found = [SaidIn(name, self.body[name]) for name in named if self.body[name] is not None]
        if len(found) > 1:
            raise InvalidRequest(f"{CHAT}: not together with {CONVERSATION}", param=CHAT)
        if not found:
            return None if named else default
        return found[0]

    def checked(self, fields: Mapping[str, Any], *, settings: Mapping[str, Any]) -> ResponseRequest:
        """The request, put as one for a response. Raises InvalidRequest in the frame's words.

        fields: which the frame has no say in. settings: which it may say otherwise.
        """
        body: dict[str, Any] = {**settings, "stream": True}
        for name, value in self.body.items():
            outer, _, inner = _PATHS.get(name, name).partition(".")
            if name in _SAME:
                body[name] = value
            elif name in _PATHS and value is not None:
                body[outer] = {inner: value} if inner else value
            elif name not in _PATHS and name not in PLACES:
                raise InvalidRequest(
                    f"{name} is not a field of this frame", param=name, code="unknown_parameter"
                )
        if not isinstance(self.body.get("text"), str):
            raise InvalidRequest("text: a text", param="text")
        try:
            return parse_response_request(body | dict(fields))
        except InvalidRequest as error:
            raise in_words_of_frames(error) from error


def in_words_of_frames(error: InvalidRequest) -> InvalidRequest:
    """A refusal of a response's field, with the name that the frame has for it."""
    told = copy(error)
    for name, path in _PATHS.items():
        if error.param == path:
            told.param = name
        elif name == "text":
            continue  # "input" is also a word
        told.message = told.message.replace(path, name)
    return told


def client_frame(fields: dict[str, Any]) -> ClientFrame:
    """The frame that a message is. Raises InvalidRequest for one whose answer could not be told
    apart; the rest is for its methods to check."""
    body = dict(fields)
    identifier = body.pop("id", None)
    is_number = isinstance(identifier, int) and not isinstance(identifier, bool)
    is_right = (
        -_MAX_ID <= identifier < _MAX_ID
        if is_number
        else isinstance(identifier, str) and len(identifier) <= _MAX_ID_LENGTH
    )
    if not is_right:
        raise InvalidRequest(
            f"id: a whole number, or a text of up to {_MAX_ID_LENGTH} letters", param="id"
        )
    return ClientFrame(identifier, body)
