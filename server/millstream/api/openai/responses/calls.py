"""Calls of tools as items of an answer, while they are made. Pure."""

from __future__ import annotations

import json
from typing import Any

from millstream.api.openai.responses.frames import Frames, escape, json_members
from millstream.api.openai.responses.items import OpenItem
from millstream.intake.responses.tools import ToolOrigin


class CallItem(OpenItem):
    """A call of a tool. call_id: by which its result will name it."""

    def __init__(
        self, frames: Frames, identifier: str, *, index: int, call_id: str, origin: ToolOrigin
    ) -> None:
        super().__init__(frames, identifier, index=index)
        self._call_id = call_id
        self._origin = origin

    @property
    def _names(self) -> dict[str, Any]:
        names = {"call_id": self._call_id, "name": self._origin.name}
        if self._origin.namespace is not None:
            names["namespace"] = self._origin.namespace
        return names

    def open(self) -> list[bytes]:
        return [self._item_event("response.output_item.added")]


class FunctionCallItem(CallItem):
    """A call with arguments."""

    def __init__(
        self, frames: Frames, identifier: str, *, index: int, call_id: str, origin: ToolOrigin
    ) -> None:
        super().__init__(frames, identifier, index=index, call_id=call_id, origin=origin)
        self._before = json_members(self._place) + ',"delta":'

    def shown(self) -> dict[str, Any]:
        item = {"id": self.id, "type": "function_call", "status": self.status}
        return item | self._names | {"arguments": self.text}

    def add(self, text: str) -> list[bytes]:
        self._pieces.append(text)
        kind = "response.function_call_arguments.delta"
        return [self._frames.event(kind, self._before + escape(text))]

    def _close_content(self) -> list[bytes]:
        done = self._place | {"name": self._origin.name, "arguments": self.text}
        return [self._frames.of_object("response.function_call_arguments.done", done)]


class CustomCallItem(CallItem):
    """A call with one text. The model writes it as an argument, which can be read when it is whole:
    so the text comes in one piece."""

    def shown(self) -> dict[str, Any]:
        item = {"id": self.id, "type": "custom_tool_call", "status": self.status}
        return item | self._names | {"input": self._input}

    def add(self, text: str) -> list[bytes]:
        self._pieces.append(text)
        return []

    def _close_content(self) -> list[bytes]:
        said = self._input
        return [
            self._frames.of_object(
                "response.custom_tool_call_input.delta", self._place | {"delta": said}
            ),
            self._frames.of_object(
                "response.custom_tool_call_input.done", self._place | {"input": said}
            ),
        ]

    @property
    def _input(self) -> str:
        """The text; as the model wrote it if that is not the argument it was told of."""
        try:
            arguments = json.loads(self.text)
        except ValueError:
            return self.text
        said = arguments.get("input") if isinstance(arguments, dict) else None
        return said if isinstance(said, str) else self.text
