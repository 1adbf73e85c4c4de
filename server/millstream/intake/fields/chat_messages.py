"""The turns of a conversation, and how chat templates want them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from millstream.intake.fields.content_parts import Content
from millstream.intake.fields.foreign_keys import (
    CalledFunctionKeys,
    CallKeys,
    MessageKeys,
    MessageNulls,
    Reads,
    keys_for_template,
    reads_nothing,
)

# Templates know `system` and `tool`; OpenAI's newer and older names mean the same.
_TEMPLATE_ROLES = {"developer": "system", "function": "tool"}


def _argument_text(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, dict):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


class Function(CalledFunctionKeys):
    """What clients add when they echo a call: description (null), and the arguments once more.

    arguments: JSON as text; an object, or none or null, as clients of other servers send it.
    """

    name: str
    arguments: Annotated[str, BeforeValidator(_argument_text)] = ""
    description: None = None
    parsed_arguments: Any = None


class ToolCall(CallKeys):
    """A call the assistant made in an earlier turn.

    Clients that join deltas leave an `index`, and an empty type.
    """

    id: str | None = None
    type: Literal["function", ""] | None = "function"
    function: Function
    index: int | None = None


class Message(MessageKeys, MessageNulls):
    """One turn. Fields that SDKs write as null when they echo an answer are accepted as null.

    reasoning_content, reasoning, thinking: three names of what the assistant thought.
    parsed: the content once more, as OpenAI's SDKs echo it.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    refusal: str | None = None
    parsed: Any = None
    audio: None = None
    function_call: Function | None = None

    @property
    def text(self) -> str:
        content = self._said
        if isinstance(content, list):
            return "\n".join(part["text"] for part in content)
        return content or ""

    @property
    def calls(self) -> list[ToolCall]:
        """The calls, also one that an old client wrote as `function_call`."""
        if self.function_call is None:
            return self.tool_calls or []
        called = ToolCall(id=_id_of_old_call(self.function_call.name), function=self.function_call)
        return [*(self.tool_calls or ()), called]

    @property
    def may_be_empty(self) -> bool:
        """Whether it says something without content, or is an empty answer that came back."""
        if self.role != "assistant":
            return False
        is_answer = "content" in self.model_fields_set
        return is_answer or bool(self.calls or self.thoughts or self.refusal)

    @property
    def thoughts(self) -> list[str]:
        """What the assistant thought, once for each place that says it."""
        parts = self.content if isinstance(self.content, list) else ()
        in_parts = "\n".join(part.said for part in parts if part.is_thought)
        found = (self.reasoning_content, self.reasoning, self.thinking, in_parts)
        return [thought for thought in found if thought]

    def to_template(self, reads: Reads = reads_nothing) -> dict[str, Any]:
        """The message as the client sent it, in the words that chat templates know.

        reads: tells which foreign keys the template gets.
        """
        message: dict[str, Any] = {"role": _TEMPLATE_ROLES.get(self.role, self.role)}
        message["content"] = self._content(reads)
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        elif self.role == "function":
            message["tool_call_id"] = _id_of_old_call(self.name or "")
        if thoughts := self.thoughts:
            message["reasoning_content"] = thoughts[0]
        if self.calls:
            message["tool_calls"] = [_template_call(call, reads) for call in self.calls]
        return message | keys_for_template(self, reads)

    @property
    def _said(self) -> str | list[dict[str, Any]] | None:
        return self._content(reads_nothing)

    def _content(self, reads: Reads) -> str | list[dict[str, Any]] | None:
        """What was said, in the form in which it was sent; a refusal is what was said, too."""
        if isinstance(self.content, list):
            parts = [
                {"type": "text", "text": part.said} | keys_for_template(part, reads)
                for part in self.content
                if not part.is_thought
            ]
            if self.refusal:
                return [*parts, {"type": "text", "text": self.refusal}]
            return parts if parts or not self.content else ""
        if self.content and self.refusal:
            return f"{self.content}\n{self.refusal}"
        return self.content or self.refusal or self.content


def _template_call(call: ToolCall, reads: Reads) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    function |= keys_for_template(call.function, reads)
    shaped = {"type": "function", "function": function}
    # Templates ask whether there is an id, and write one that is null as a word.
    with_id = {"id": call.id} | shaped if call.id else shaped
    return with_id | keys_for_template(call, reads)


def _id_of_old_call(name: str) -> str:
    """An id for calls and results that old clients know by the function's name only."""
    return f"call_{name}"
