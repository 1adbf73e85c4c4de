"""The items of an answer while they are made: a text, a thought, or a call of a tool.

Each says the events that announce it, those of what is added to it and those that close it, and
what it looks like at any time. Pure.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from millstream.api.openai.responses.frames import Frames, escape, json_members
from millstream.intake.responses.sealed_text import encode_reasoning

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OpenItem(ABC):
    """An item that grows. index: its place in the output."""

    def __init__(self, frames: Frames, identifier: str, *, index: int) -> None:
        self._frames = frames
        self._index = index
        self._pieces: list[str] = []
        self.id = identifier
        self.status: ItemStatus = "in_progress"

    @property
    def text(self) -> str:
        """What was added so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @abstractmethod
    def shown(self) -> dict[str, Any]:
        """The item as it is now."""

    @abstractmethod
    def open(self) -> list[bytes]:
        """The events that announce it. Called before anything is added."""

    @abstractmethod
    def add(self, text: str) -> list[bytes]:
        """Takes more text, and gives the events that say so."""

    @abstractmethod
    def _close_content(self) -> list[bytes]:
        """The events that end what is in the item."""

    def close(self, status: ItemStatus) -> list[bytes]:
        """The events that end it."""
        events = self._close_content()
        self.status = status
        return [*events, self._item_event("response.output_item.done")]

    def _item_event(self, kind: str) -> bytes:
        return self._frames.of_object(kind, {"output_index": self._index, "item": self.shown()})

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self._index}


class TextItem(OpenItem):
    """An item with one part, which is a text that grows."""

    part_type: ClassVar[str]
    delta_kind: ClassVar[str]
    done_kind: ClassVar[str]

    def __init__(self, frames: Frames, identifier: str, *, index: int) -> None:
        super().__init__(frames, identifier, index=index)
        place = json_members(self._place | {"content_index": 0})
        self._before = f'{place},"delta":'

    @abstractmethod
    def _part(self, text: str) -> dict[str, Any]:
        """The part with this text."""

    def open(self) -> list[bytes]:
        added = self._item_event("response.output_item.added")
        self._pieces.append("")
        return [added, self._part_event("response.content_part.added")]

    def _part_event(self, kind: str) -> bytes:
        where = self._place | {"content_index": 0}
        return self._frames.of_object(kind, where | {"part": self._part(self.text)})

    @property
    def _parts(self) -> list[dict[str, Any]]:
        return [self._part(self.text)] if self._pieces else []


class MessageItem(TextItem):
    """What the model says to the user. logprobs: those of its tokens, if they were asked for."""

    part_type = "output_text"
    delta_kind = "response.output_text.delta"
    done_kind = "response.output_text.done"

    def __init__(self, frames: Frames, identifier: str, *, index: int) -> None:
        super().__init__(frames, identifier, index=index)
        self._logprobs: list[dict[str, Any]] = []

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": self._parts,
        }

    def _part(self, text: str) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": self._logprobs,
        }

    def add(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> list[bytes]:
        self._pieces.append(text)
        said = "[]"
        if logprobs:
            self._logprobs += logprobs
            said = json.dumps(logprobs)
        fields = f'{self._before}{escape(text)},"logprobs":{said}'
        return [self._frames.event(self.delta_kind, fields)]

    def _close_content(self) -> list[bytes]:
        where = self._place | {"content_index": 0}
        done = where | {"text": self.text, "logprobs": self._logprobs}
        return [
            self._frames.of_object(self.done_kind, done),
            self._part_event("response.content_part.done"),
        ]


class ReasoningItem(TextItem):
    """What the model thinks before it answers. is_encoded: whether a copy of it is wanted that
    clients send back who keep nothing else (`include: reasoning.encrypted_content`)."""

    part_type = "reasoning_text"
    delta_kind = "response.reasoning_text.delta"
    done_kind = "response.reasoning_text.done"

    def __init__(
        self, frames: Frames, identifier: str, *, index: int, is_encoded: bool = False
    ) -> None:
        super().__init__(frames, identifier, index=index)
        self._is_encoded = is_encoded

    def shown(self) -> dict[str, Any]:
        is_done = self.status != "in_progress"
        encoded = encode_reasoning(self.text) if self._is_encoded and is_done else None
        return {
            "id": self.id,
            "type": "reasoning",
            "status": self.status,
            "summary": [],
            "content": self._parts,
            "encrypted_content": encoded,
        }

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": text}

    def add(self, text: str) -> list[bytes]:
        self._pieces.append(text)
        return [self._frames.event(self.delta_kind, self._before + escape(text))]

    def _close_content(self) -> list[bytes]:
        where = self._place | {"content_index": 0}
        return [
            self._frames.of_object(self.done_kind, where | {"text": self.text}),
            self._part_event("response.content_part.done"),
        ]
