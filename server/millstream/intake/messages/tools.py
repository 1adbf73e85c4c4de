"""The fields `tools` and `tool_choice` of the Messages API, in the words of a chat request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from millstream.intake.fields.tool_choice import FunctionName, ToolChoice
from millstream.intake.fields.tools import Tool, ToolName
from millstream.intake.hints import check_hints, is_hint
from millstream.intake.messages.blocks import check_part, refusal
from millstream.intake.strict_body import Body


class GivenTool(Body):
    """input_examples: put into the schema, where every chat template shows them. The four last
    fields are hints."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any]
    input_examples: list[dict[str, Any]] | None = None
    strict: bool | None = None
    cache_control: Any = None
    allowed_callers: Any = None
    defer_loading: Any = None
    eager_input_streaming: Any = None

    def for_chat(self) -> Tool:
        parameters = self.input_schema
        if self.input_examples:
            parameters = {**parameters, "examples": self.input_examples}
        return Tool(
            type="function",
            name=self.name,
            description=self.description,
            parameters=parameters,
            strict=self.strict,
        )


class GivenChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """tools: as chat takes them. paths: the place of each in the body. hosted: the names of tools
    that are not offered."""

    tools: list[Tool]
    paths: list[str]
    hosted: frozenset[str]

    def choice(self, given: GivenChoice | None) -> str | ToolChoice | None:
        """The choice as chat takes it. Raises InvalidRequest."""
        if given is None:
            return None
        if (given.name is None) == (given.type == "tool"):
            needs = "type tool needs it" if given.name is None else f"type {given.type} has none"
            raise refusal("tool_choice.name", needs)
        if given.name is not None:
            if given.name in self.hosted:
                raise refusal("tool_choice.name", "this server does not run such tools")
            if given.name not in {tool.called.name for tool in self.tools}:
                raise refusal("tool_choice.name", "none of the tools has this name")
            return ToolChoice(type="function", function=FunctionName(name=given.name))
        if given.type == "any" and not self.tools:
            raise refusal("tool_choice", "there are no tools to call")
        return "required" if given.type == "any" else given.type


def read_tools(given: Sequence[Any]) -> OfferedTools:
    """The tools that can be offered. Raises InvalidRequest."""
    offered = OfferedTools([], [], frozenset())
    hosted: set[str] = set()
    names: set[str] = set()
    for place, tool in enumerate(given):
        path = f"tools[{place}]"
        if not isinstance(tool, dict):
            raise refusal(path, "should be an object")
        kind = tool.get("type")
        if kind is not None and is_hint("messages", "tools[].type", kind):
            hosted.update(name for name in [tool.get("name")] if isinstance(name, str))
            continue
        if kind not in (None, "custom"):
            raise refusal(f"{path}.type", "no tool of this type can be offered")
        others = {name: value for name, value in tool.items() if name != "type"}
        check_hints("messages", others, under="tools[].", at=f"{path}.")
        checked = check_part(GivenTool, tool, path=path)
        if checked.name in names:
            raise refusal(f"{path}.name", f"{checked.name} is there twice")
        names.add(checked.name)
        offered.tools.append(checked.for_chat())
        offered.paths.append(path)
    return OfferedTools(offered.tools, offered.paths, frozenset(hosted))
