"""What a client says in a frame, checked. Pure.

Source: llm-token-stream, whose frames are `{"id", "text"}`. The other fields are ours, and have the
names that chat completions give them.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

from millstream.errors import InvalidRequest
from millstream.intake.responses.request import ResponseRequest, parse_response_request
from millstream.intake.sampling_fields import DrawingFields

NEW = "new"
"""The conversation of a message that begins one."""

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
_CONVERSATION = "conversation"
_CANCEL = "cancel"


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

    def conversation(self, default: str | None) -> str | None:
        """The conversation it is said in, or NEW; None if it is said by itself.

        default: the one that is meant if none is named. Raises InvalidRequest.
        """
        given = self.body.get(_CONVERSATION, default)
        if given is not None and not isinstance(given, str):
            raise InvalidRequest(
                f"conversation: the id of a conversation, '{NEW}' or null", param=_CONVERSATION
            )
        return given

    def checked(self, conversation_id: str | None) -> ResponseRequest:
        """The request, put as one for a response. Raises InvalidRequest in the frame's words."""
        body: dict[str, Any] = {"stream": True}
        for name, value in self.body.items():
            outer, _, inner = _PATHS.get(name, name).partition(".")
            if name in _SAME:
                body[name] = value
            elif name in _PATHS and value is not None:
                body[outer] = {inner: value} if inner else value
            elif name not in _PATHS and name != _CONVERSATION:
                raise InvalidRequest(
                    f"{name} is not a field of this frame", param=name, code="unknown_parameter"
                )
        if not isinstance(self.body.get("text"), str):
            raise InvalidRequest("text: a text", param="text")
        body |= {"store": False} if conversation_id is None else {_CONVERSATION: conversation_id}
        try:
            return parse_response_request(body)
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
