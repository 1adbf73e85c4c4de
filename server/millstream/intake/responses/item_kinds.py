"""What items may be made of: every key that OpenAI's document gives them, and those that programs
leave in items when they send them back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from millstream.intake.strict_body import Body, tag

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ItemPart(Body):
    """A text, whatever kind of text its type says. parsed: the text once more, as SDKs add it."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    annotations: Any = None
    cache_control: Any = None
    id: Any = None
    index: Any = None
    logprobs: Any = None
    parsed: Any = None
    prompt_cache_breakpoint: Any = None


Parts = list[ItemPart]
Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[Parts, Tag("parts")],
    Discriminator(tag(of_list="parts", otherwise="text")),
]


class ItemKeys(Body):
    """Keys that any item may have; none of them changes what it says."""

    id: Id | None = None
    agent: Any = None
    async_: Any = Field(None, alias="async")
    caller: Any = None
    created_at: Any = None
    created_by: Any = None
    object: Any = None
    status: Any = None


class MessageItem(ItemKeys):
    type: Literal["message"]
    role: Literal["user", "system", "developer", "assistant"]
    content: Content
    phase: Any = None


class FunctionCallItem(ItemKeys):
    type: Literal["function_call"]
    call_id: Id
    name: Name
    arguments: str
    namespace: Name | None = None
    parsed_arguments: Any = None


class CustomCallItem(ItemKeys):
    type: Literal["custom_tool_call"]
    call_id: Id
    name: Name
    input: str
    namespace: Name | None = None


class CallOutputItem(ItemKeys):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Id
    output: Content
    name: Any = None
    namespace: Any = None


class ReasoningItem(ItemKeys):
    type: Literal["reasoning"]
    summary: Parts | None = None
    content: Parts | None = None
    encrypted_content: str | None = None


class ReferenceItem(Body):
    type: Literal["item_reference"]
    id: Id


class CompactionItem(ItemKeys):
    type: Literal["compaction"]
    encrypted_content: str


class ToolSearchItem(ItemKeys):
    """arguments: what was looked for; the tools that were found are in the item after it."""

    type: Literal["tool_search_call"]
    arguments: Any = None
    call_id: Id | None = None
    execution: Any = None


class MoreToolsItem(ItemKeys):
    """Tools that the conversation has come by; they are offered like those of the request."""

    type: Literal["tool_search_output", "additional_tools"]
    tools: list[dict[str, Any]] = Field(max_length=1024)
    call_id: Id | None = None
    execution: Any = None
    role: Any = None


ITEM_KINDS: dict[str, type[Body]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": CallOutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": CallOutputItem,
    "reasoning": ReasoningItem,
    "item_reference": ReferenceItem,
    "compaction": CompactionItem,
    "tool_search_call": ToolSearchItem,
    "tool_search_output": MoreToolsItem,
    "additional_tools": MoreToolsItem,
}
"""Type -> what such an item may have."""
