"""Turns of a conversation that came in pieces, as messages of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from millstream.intake.fields.chat_messages import Message


class MessagePlaces(NamedTuple):
    """The paths of what a message was made of: what it says, and each of its calls."""

    content: str
    calls: tuple[str, ...] = ()


@dataclass(slots=True)
class SaidTurn:
    """What the model said in one go. path: of its content. paths: of its calls."""

    path: str
    thoughts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def message(self, content: str | list[dict[str, str]]) -> tuple[Message, MessagePlaces]:
        """The message, with its texts in this form, and where it came from."""
        fields: dict[str, Any] = {"role": "assistant", "content": content}
        if self.thoughts:
            fields["reasoning_content"] = "\n\n".join(self.thoughts)
        if self.calls:
            fields["tool_calls"] = self.calls
            fields["content"] = fields["content"] or None
        return Message.model_validate(fields), MessagePlaces(self.path, tuple(self.paths))


def content_of(texts: Sequence[str]) -> str | list[dict[str, str]]:
    """One text as that, several as parts."""
    if len(texts) < 2:
        return "".join(texts)
    return [{"type": "text", "text": text} for text in texts]
