"""The turns of a conversation, and how chat templates want them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body, tag


class TextPart(Body):
    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[TextPart], Tag("parts")],
    Discriminator(tag(of_list="parts", otherwise="text")),
]


class Function(Body):
    """What clients add when they echo a call: description (null), and the arguments once more."""

    name: str
    arguments: str
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

    def to_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: text content, arguments as an object.

        Raises InvalidRequest if the arguments of a tool call are not JSON.
        """
        # Templates know `system`; `developer` is OpenAI's newer name for the same thing.
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": self.text}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if reasoning := self.reasoning_content or self.reasoning:
            message["reasoning_content"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = [_template_call(call) for call in self.tool_calls]
        return message


def _template_call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError as error:
        raise InvalidRequest(
            f"the arguments of tool call {call.function.name} are not JSON", param="messages"
        ) from error
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
