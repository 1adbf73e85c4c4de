"""From items to the messages of a chat.

Rules: what the model said in one go, its thoughts, text and calls, is one message, so that the
prompt repeats the tokens of the answer and the prefix cache has them. Texts of the system at the
start are one message. All else stays where it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from millstream.errors import InvalidRequest
from millstream.intake.fields.chat_messages import Message
from millstream.intake.requests.turns import MessagePlaces, SaidTurn, content_of
from millstream.intake.responses.items import Item
from millstream.intake.responses.sealed_text import NotSealedHere, decode_reasoning
from millstream.intake.responses.tools import CUSTOM_ARGUMENT, ToolNames

_SYSTEM = ("system", "developer")
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""The types of calls -> the key of what they are called with."""
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_SILENT = ("tool_search_call", "tool_search_output", "additional_tools")
"""The types of items that bring tools, and have no words for the model."""


class PlacedItem(NamedTuple):
    """An item, and the path in the body that brought it."""

    path: str
    item: Item


class Conversation:
    """Messages made of items in their order. places: where each came from."""

    def __init__(self, names: ToolNames) -> None:
        self.messages: list[Message] = []
        self.places: list[MessagePlaces] = []
        self._names = names
        self._answer: SaidTurn | None = None
        self._system: list[str] = []
        self._system_path = ""
        self._called: set[str] = set()

    def add_instructions(self, text: str) -> None:
        self._system.append(text)
        self._system_path = "instructions"

    def add(self, items: Iterable[PlacedItem]) -> None:
        """Raises InvalidRequest for an output without its call, and a reference to no item."""
        for path, item in items:
            kind = item["type"]
            is_first = not self.messages and self._answer is None
            if is_first and kind == "message" and item["role"] in _SYSTEM:
                self._system += filter(None, ["\n".join(_texts(item["content"]))])
                self._system_path = self._system_path or f"{path}.content"
                continue
            self._add(path, item)

    def finish(self) -> None:
        """Ends the last message, to be called once. Raises InvalidRequest if there is none."""
        self._end_answer()
        self._end_system()
        if not self.messages:
            raise InvalidRequest("input: there is nothing to answer", param="input")

    def _add(self, path: str, item: Item) -> None:
        self._end_system()
        kind = item["type"]
        if kind == "message" and item["role"] == "assistant":
            self._said(path).texts += _texts(item["content"])
        elif kind == "reasoning":
            self._said(path).thoughts += filter(None, [thought_of(item)])
        elif kind in _CALLS:
            self._add_call(path, item)
        elif kind == "message":
            role = "system" if item["role"] in _SYSTEM else "user"
            content = content_of(_texts(item["content"]))
            self._append({"role": role, "content": content}, f"{path}.content")
        elif kind in _OUTPUTS:
            self._add_output(path, item)
        elif kind == "compaction":
            text = decode_reasoning(item["encrypted_content"])
            self._append({"role": "user", "content": text}, f"{path}.encrypted_content")
        elif kind not in _SILENT:
            raise InvalidRequest(f"{path}: there is no such item", param=path)

    def _add_call(self, path: str, item: Item) -> None:
        kind, key = item["type"], _CALLS[item["type"]]
        name = self._names.for_model(item["name"], item.get("namespace"))
        arguments = item[key]
        if kind == "custom_tool_call":
            arguments = json.dumps({CUSTOM_ARGUMENT: arguments}, ensure_ascii=False)
        answer = self._said(path)
        answer.calls.append(
            {"id": item["call_id"], "function": {"name": name, "arguments": arguments}}
        )
        answer.paths.append(f"{path}.{key}")
        self._called.add(item["call_id"])

    def _add_output(self, path: str, item: Item) -> None:
        if item["call_id"] not in self._called:
            raise InvalidRequest(
                f"{path}.call_id: no call before it has this id", param=f"{path}.call_id"
            )
        output = item["output"]
        content = output if isinstance(output, str) else content_of(_texts(output))
        message = {"role": "tool", "content": content, "tool_call_id": item["call_id"]}
        self._append(message, f"{path}.output")

    def _said(self, path: str) -> SaidTurn:
        if self._answer is None:
            self._answer = SaidTurn(f"{path}.content")
        return self._answer

    def _append(self, message: dict[str, Any], path: str) -> None:
        self._end_answer()
        self.messages.append(Message.model_validate(message))
        self.places.append(MessagePlaces(path))

    def _end_answer(self) -> None:
        if self._answer is not None:
            message, places = self._answer.message(content_of(self._answer.texts))
            self._answer = None
            self.messages.append(message)
            self.places.append(places)

    def _end_system(self) -> None:
        if self._system:
            text, self._system = "\n\n".join(self._system), []
            self.messages.insert(0, Message(role="system", content=text))
            self.places.insert(0, MessagePlaces(self._system_path))


def thought_of(item: Item) -> str:
    """What a reasoning item says, from the first of its keys that say it."""
    if content := _texts(item.get("content") or ()):
        return "".join(content)
    if sealed := item.get("encrypted_content"):
        try:
            return decode_reasoning(sealed)
        except NotSealedHere:
            pass  # then it was checked that there is a summary
    return "\n\n".join(_texts(item.get("summary") or ()))


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part.get("text") or part.get("refusal") or "" for part in content]
