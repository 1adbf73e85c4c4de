"""What the messages of a conversation must have, beside the types of their fields."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.api.openai.fields.chat_messages import ContentPart, Message
from millstream.errors import InvalidRequest


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for a message that says nothing, or says its reasoning twice."""
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.content in (None, []) and not message.may_be_empty:
            raise _refusal(f"{path}.content", f"the {message.role}'s message has none")
        for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
            _check_part(part, path=f"{path}.content[{number}]")
        _check_reasoning(message, path=f"{path}.reasoning_content")


def _check_part(part: ContentPart, *, path: str) -> None:
    other = "refusal" if part.type == "text" else "text"
    if getattr(part, part.type) is None:
        raise _refusal(f"{path}.{part.type}", "Field required")
    if getattr(part, other) is not None:
        raise _refusal(f"{path}.{other}", f"a part of type {part.type} has none")


def _check_reasoning(message: Message, *, path: str) -> None:
    given = {message.reasoning_content, message.reasoning} - {None}
    if given and message.role != "assistant":
        raise _refusal(path, "only the assistant has reasoning")
    if len(given) > 1:
        raise _refusal(path, "reasoning means the same and differs; send one of them")


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
