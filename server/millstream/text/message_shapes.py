"""The shapes of messages that chat templates can read, and messages put into one.

Rule: what a template reads as it was sent stays as it was sent. Which shape that is, and which is
the nearest where it cannot, is found by `template_trial`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from millstream.text.call_arguments import read_arguments, write_arguments
from millstream.text.call_ids import with_call_ids
from millstream.text.message_moves import (
    Message,
    PlacedMessage,
    call_by_call,
    late_system_as_user,
    merged,
    placed,
    system_before_user,
    text_with_answer,
)

REASONING_NAMES = ("reasoning_content", "reasoning", "thinking")
"""What clients and templates call the assistant's thoughts."""

_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 9


class ContentForm(Enum):
    """What a template reads as content: either form; text only; parts only; a single part only."""

    AS_SENT = "as sent"
    TEXT = "text"
    PARTS = "parts"
    ONE_PART = "one part"


class NoContent(Enum):
    """What stands beside calls where the client sent null: the key is absent, null, or text."""

    ABSENT = "absent"
    NULL = "null"
    EMPTY = "empty"


class ArgumentsForm(Enum):
    OBJECT = "object"
    TEXT = "text"
    WRAPPED = "wrapped"
    """An object; what is none is put into one, under the key "arguments"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageShape:
    """One shape, by default the native one: messages as transformers expects them.

    contents: for each role. short_ids: calls are known by nine letters and digits.
    splits_calls: text beside calls becomes a message of its own before them.
    joins_text: such text goes to the answer that ends the turn, where there is one.
    one_call: each call is a message of its own, with its result behind it.
    moves_system: in a conversation with results of tools, the system's text goes to the user.
    late_system_as_user: the system's texts behind the first message are the user's.
    merges: the roles of which messages that follow one another become one.
    shows_calls: whether the template writes calls at all.
    shows_text_beside_calls: a template that leaves such text out does so on purpose.
    """

    contents: Mapping[str, ContentForm] = field(default_factory=dict)
    no_content: NoContent = NoContent.ABSENT
    arguments: ArgumentsForm = ArgumentsForm.OBJECT
    short_ids: bool = False
    splits_calls: bool = False
    joins_text: bool = False
    one_call: bool = False
    moves_system: bool = False
    late_system_as_user: bool = False
    merges: frozenset[str] = frozenset()
    shows_calls: bool = False
    shows_text_beside_calls: bool = False
    reasoning: str = REASONING_NAMES[0]


def arguments_path(message: int, call: int) -> str:
    return f"messages[{message}].tool_calls[{call}].function.arguments"


def put_into_shape(messages: Sequence[Message], shape: MessageShape) -> list[Message]:
    """The messages as this shape wants them. Raises InvalidRequest for impossible arguments."""
    moved = placed(with_call_ids(messages) if shape.short_ids else messages)
    if shape.moves_system:
        moved = system_before_user(moved)
    if shape.late_system_as_user:
        moved = late_system_as_user(moved)
    if shape.merges:
        moved = merged(moved, shape.merges)
    if shape.joins_text:
        moved = text_with_answer(moved)
    if shape.one_call:
        moved = list(call_by_call(moved))
    return [shaped for each in moved for shaped in _shaped(each, shape)]


def texts_of(content: Any) -> list[str]:
    """The texts of a content in either form."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        return [part["text"] for part in content if _is_text(part)]
    return []


def _shaped(original: PlacedMessage, shape: MessageShape) -> Iterator[Message]:
    place, first_call, message = original
    shaped = dict(message)
    content = _content(message.get("content"), shape.contents.get(message.get("role", "")))
    calls = message.get("tool_calls")
    if "content" in message:
        shaped["content"] = content
    thoughts = [thought for name in REASONING_NAMES if (thought := shaped.pop(name, None))]
    if thoughts:
        shaped[shape.reasoning] = thoughts[0]
    if shape.short_ids and message.get("tool_call_id") is not None:
        shaped["tool_call_id"] = _short_id(message["tool_call_id"])
    if not calls:
        if content is None and "content" in message:
            shaped["content"] = ""
        yield shaped
        return
    shaped["tool_calls"] = [
        _call(call, shape, path=arguments_path(place, index))
        for index, call in enumerate(calls, start=first_call)
    ]
    if content and shape.splits_calls:
        yield {"role": message["role"], "content": content}
        content = None
    if not content:
        shaped.pop("content", None)
        if shape.no_content is not NoContent.ABSENT:
            shaped["content"] = None if shape.no_content is NoContent.NULL else ""
    yield shaped


def _content(content: Any, form: ContentForm | None) -> Any:
    if isinstance(content, str):
        if form in (ContentForm.PARTS, ContentForm.ONE_PART):
            return [{"type": "text", "text": content}]
        return content
    if not isinstance(content, list) or not all(map(_is_text, content)):
        return content
    joined = "\n".join(texts_of(content))
    if form is ContentForm.TEXT:
        return joined
    if form is ContentForm.ONE_PART:
        return [{"type": "text", "text": joined}]
    return content


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and "text" in part


def _call(call: Mapping[str, Any], shape: MessageShape, *, path: str) -> dict[str, Any]:
    shaped = dict(call)
    if shape.short_ids and call.get("id") is not None:
        shaped["id"] = _short_id(call["id"])
    function = call.get("function")
    if isinstance(function, Mapping) and "arguments" in function:
        arguments = _arguments(function["arguments"], shape.arguments, path=path)
        shaped["function"] = {**function, "arguments": arguments}
    return shaped


def _arguments(arguments: Any, form: ArgumentsForm, *, path: str) -> Any:
    if form is ArgumentsForm.TEXT:
        return write_arguments(arguments, field=path)
    value = read_arguments(arguments, field=path)
    if form is ArgumentsForm.WRAPPED and not isinstance(value, dict):
        return {"arguments": value}
    return value


def _short_id(identifier: str) -> str:
    """Nine letters and digits, always the same for an id; one that is so already stays."""
    if len(identifier) == _ID_LENGTH and identifier.isascii() and identifier.isalnum():
        return identifier
    number = int.from_bytes(hashlib.sha256(identifier.encode()).digest(), "big")
    letters = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_ID_LETTERS))
        letters.append(_ID_LETTERS[digit])
    return "".join(letters)
