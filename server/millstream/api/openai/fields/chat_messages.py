"""The turns of a conversation, and how chat templates want them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from millstream.intake.strict_body import Body, tag


class TextPart(Body):
    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[TextPart], Tag("parts")],
    Discriminator(tag(of_list="parts", otherwise="text")),
]


def _argument_text(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, dict):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


class Function(Body):
    """What clients add when they echo a call: description (null), and the arguments once more.

    arguments: JSON as text; an object, or null for none, as clients of other servers send it.
    """

    name: str
    arguments: Annotated[str, BeforeValidator(_argument_text)]
    description: None = None
    parsed_arguments: Any = None


class ToolCall(Body):
    """A call the assistant made in an earlier turn. `index` is left by clients that copy deltas."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function
    index: int | None = None


class Message(Body):
    """One turn. Fields that SDKs write as null when they echo an answer are accepted as null.

    reasoning_content, reasoning: two names of what the assistant thought.
    parsed: the content once more, as OpenAI's SDKs echo it.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    parsed: Any = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(None, max_length=0)

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""

    @property
    def may_be_empty(self) -> bool:
        """Whether it says something without content, or is an empty answer that came back."""
        if self.role != "assistant":
            return False
        is_answer = "content" in self.model_fields_set
        return is_answer or bool(self.tool_calls or self.reasoning_content or self.reasoning)

    def to_template(self) -> dict[str, Any]:
        """The message as the client sent it, in the words that chat templates know."""
        # Templates know `system`; `developer` is OpenAI's newer name for the same thing.
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": self._template_content}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if reasoning := self.reasoning_content or self.reasoning:
            message["reasoning_content"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = [_template_call(call) for call in self.tool_calls]
        return message

    @property
    def _template_content(self) -> str | list[dict[str, str]] | None:
        if isinstance(self.content, list):
            return [{"type": "text", "text": part.text} for part in self.content]
        return self.content


def _template_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": "function", "function": function}
