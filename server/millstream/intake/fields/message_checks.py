"""What the messages of a conversation must have, beside the types of their fields."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors import InvalidRequest
from millstream.intake.fields.chat_messages import Message
from millstream.intake.fields.content_parts import ContentPart


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for a message that says nothing, or says its reasoning twice."""
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.content in (None, []) and not message.may_be_empty:
            raise _refusal(f"{path}.content", f"the {message.role}'s message has none")
        for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
            _check_part(part, path=f"{path}.content[{number}]")
        _check_reasoning(message, path=f"{path}.reasoning_content")


_MEMBERS = {"refusal": ("refusal",), "thinking": ("thinking",), "reasoning": ("reasoning", "text")}
"""The members that may say what a part of a type says; all other types are texts."""


def _check_part(part: ContentPart, *, path: str) -> None:
    members = _MEMBERS.get(part.type, ("text",))
    given = [
        name
        for name in ("text", "refusal", "thinking", "reasoning")
        if getattr(part, name) is not None
    ]
    if not set(given) & set(members):
        raise _refusal(f"{path}.{members[0]}", "Field required")
    for name in given:
        if name not in members:
            raise _refusal(f"{path}.{name}", f"a part of type {part.type} has none")
    if len(given) > 1:
        raise _refusal(f"{path}.{given[1]}", f"{given[0]} says it already; send one of them")


def _check_reasoning(message: Message, *, path: str) -> None:
    given = set(message.thoughts)
    if given and message.role != "assistant":
        raise _refusal(path, "only the assistant has reasoning")
    if len(given) > 1:
        raise _refusal(path, "several fields say what was thought, and differ; send one of them")


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
