"""The field `tool_choice`, in the shapes of it that are objects.

Sources: OpenAI; TGI, whose function has no type; the Responses API, where a name is beside the
type; Anthropic and those who write modes as objects.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from pydantic import Field

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body

MAX_TOOLS = 128
MAX_AGENT_TOOLS = 1024
"""As many as the APIs of agents take."""


class FunctionName(Body):
    name: str


class NamedTool(Body):
    """A function by its name, in `function` or beside the type."""

    type: Literal["function"]
    function: FunctionName | None = None
    name: str | None = None

    @property
    def called(self) -> str:
        """The name. To be asked after `check()` of the choice."""
        name = self.name if self.function is None else self.function.name
        assert name is not None
        return name

    def check(self, names: Set[str], *, path: str) -> None:
        _check_name(self.function, self.name, names, path=path)


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_AGENT_TOOLS)


class ToolChoice(Body):
    """One tool that must be called, those that may, or a mode."""

    type: Literal["function", "allowed_tools", "none", "auto", "required", "any"] = "function"
    function: FunctionName | None = None
    name: str | None = None
    allowed_tools: AllowedTools | None = None

    @property
    def mode(self) -> str | None:
        """The mode, if it is no more than that."""
        is_more = self.function or self.name is not None or self.allowed_tools
        return None if is_more or self.type in ("function", "allowed_tools") else self.type

    @property
    def called(self) -> str:
        """The tool that must be called, if it is one. To be asked after `check()`."""
        name = self.name if self.function is None else self.function.name
        assert name is not None
        return name

    def check(self, names: Set[str]) -> None:
        """Raises InvalidRequest for members that do not fit, and names that no tool has."""
        takes = {"function": ("function", "name"), "allowed_tools": ("allowed_tools",)}
        for member in ("allowed_tools", "function", "name"):
            if getattr(self, member) is not None and member not in takes.get(self.type, ()):
                raise _refusal(f"tool_choice.{member}", f"type {self.type} has none")
        if self.type == "function":
            _check_name(self.function, self.name, names, path="tool_choice")
        elif self.allowed_tools is None:
            raise _refusal(f"tool_choice.{self.type}", f"type {self.type} needs it")
        else:
            for index, tool in enumerate(self.allowed_tools.tools):
                tool.check(names, path=f"tool_choice.allowed_tools.tools[{index}]")


def _check_name(
    function: FunctionName | None, name: str | None, names: Set[str], *, path: str
) -> None:
    """Raises InvalidRequest if there is not one name, or it is not that of a tool."""
    if function is None and name is None:
        raise _refusal(f"{path}.function", "type function needs it")
    if function is not None and name is not None:
        raise _refusal(f"{path}.name", "function says it; send one of them")
    if (name if function is None else function.name) not in names:
        where = f"{path}.name" if function is None else f"{path}.function.name"
        raise _refusal(where, "none of the tools has this name")


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
