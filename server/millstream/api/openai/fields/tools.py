"""Fields that offer tools to the model, and those that demand calls.

Sources: OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`; TGI's `tool_choice`, which is
the bare name of a tool, or a function without a type.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, StringConstraints, Tag

from millstream.api.openai.fields.foreign_keys import (
    Reads,
    ToolKeys,
    keys_for_template,
    reads_nothing,
)
from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body

MAX_TOOLS = 128

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionTool(ToolKeys):
    """parameters: a JSON schema of the arguments. strict: whether calls are held to it."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(ToolKeys):
    type: Literal["function"]
    function: FunctionTool

    def to_template(self, reads: Reads = reads_nothing) -> dict[str, Any]:
        """The tool as chat templates expect it: without what was not given.

        reads: tells which foreign keys the template gets.
        """
        function: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            function["description"] = self.function.description
        if self.function.parameters is not None:
            function["parameters"] = self.function.parameters
        function |= keys_for_template(self.function, reads)
        return {"type": "function", "function": function} | keys_for_template(self, reads)


class FunctionName(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS)


class ToolChoice(Body):
    """One tool that must be called, or those that may."""

    type: Literal["function", "allowed_tools"] = "function"
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class WantedCalls(NamedTuple):
    """Calls that are held to their tools' schemas.

    param: the path of the field that asks for it. places: of the tools that may be called.
    is_forced: whether one must be. max_calls: None for as many as the model likes.
    """

    param: str
    places: tuple[int, ...]
    is_forced: bool
    max_calls: int | None


class ToolFields(Body):
    """One part of a chat request."""

    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: (
        Annotated[
            Annotated[str, Tag("text")] | Annotated[ToolChoice, Tag("parts")],
            Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None

    @property
    def offered_tools(self) -> list[dict[str, Any]]:
        """The tools that the model is told of."""
        return self.tools_for_template(reads_nothing)

    def tools_for_template(self, reads: Reads) -> list[dict[str, Any]]:
        """Those as the model's template gets them. reads: see `Tool.to_template`."""
        if self.tool_choice == "none":
            return []
        return [tool.to_template(reads) for tool in self.tools or ()]

    @property
    def callable_tools(self) -> list[dict[str, Any]]:
        """Those of them that this answer may call."""
        wanted = self.wanted_calls
        offered = self.offered_tools
        return offered if wanted is None else [offered[place] for place in wanted.places]

    @property
    def is_tool_named(self) -> bool:
        """Whether one tool is to be called, and no other."""
        choice = self.tool_choice
        if isinstance(choice, str):
            return choice not in ("none", "auto", "required")
        return choice is not None and choice.type == "function"

    @property
    def wanted_calls(self) -> WantedCalls | None:
        """The calls that have to come, or to be right; None if the model calls what it likes as it
        likes. To be asked after `check_tools()`."""
        if not self.offered_tools:
            return None
        functions = [tool.function for tool in self.tools or ()]
        places = {function.name: place for place, function in enumerate(functions)}
        choice = self.tool_choice
        names, mode, param = list(places), "auto", "tool_choice"
        if isinstance(choice, ToolChoice) and choice.allowed_tools is not None:
            mode = choice.allowed_tools.mode
            names = [tool.function.name for tool in choice.allowed_tools.tools]
        elif self.is_tool_named:
            mode, names = "required", [self._named]
        elif choice == "required":
            mode = "required"
        else:
            strict = [place for place, function in enumerate(functions) if function.strict]
            if not strict:
                return None
            param = f"tools[{strict[0]}].function.strict"
        is_single = self.is_tool_named or self.parallel_tool_calls is False
        return WantedCalls(
            param,
            tuple(sorted({places[name] for name in names})),
            is_forced=mode == "required",
            max_calls=1 if is_single else None,
        )

    @property
    def calls_beside_a_format(self) -> WantedCalls | None:
        """The calls that may come where every other answer has a form: those are right, too."""
        if self.wanted_calls is not None or not self.offered_tools:
            return self.wanted_calls
        return WantedCalls(
            "tools",
            tuple(range(len(self.tools or ()))),
            is_forced=False,
            max_calls=1 if self.parallel_tool_calls is False else None,
        )

    @property
    def must_call(self) -> bool:
        wanted = self.wanted_calls
        return wanted is not None and wanted.is_forced

    def check_tools(self) -> None:
        """Raises InvalidRequest for two tools of one name, and a choice of what is not there."""
        names: set[str] = set()
        for index, tool in enumerate(self.tools or ()):
            if tool.function.name in names:
                path = f"tools[{index}].function.name"
                raise _refusal(path, f"{tool.function.name} is there twice")
            names.add(tool.function.name)
        choice = self.tool_choice
        if isinstance(choice, ToolChoice):
            self._check_choice(choice, names)
        elif self.is_tool_named and choice not in names:
            raise _refusal("tool_choice", "none, auto, required or the name of one of the tools")
        if not names and choice not in (None, "none", "auto"):
            raise _refusal("tool_choice", "there are no tools to call")

    @property
    def _named(self) -> str:
        choice = self.tool_choice
        if isinstance(choice, ToolChoice):
            assert choice.function is not None
            return choice.function.name
        assert choice is not None
        return choice

    def _check_choice(self, choice: ToolChoice, names: set[str]) -> None:
        allowed = choice.allowed_tools
        other = "allowed_tools" if choice.type == "function" else "function"
        if getattr(choice, choice.type) is None:
            raise _refusal(f"tool_choice.{choice.type}", f"type {choice.type} needs it")
        if getattr(choice, other) is not None:
            raise _refusal(f"tool_choice.{other}", f"type {choice.type} has none")
        if choice.function is not None and choice.function.name not in names:
            raise _refusal("tool_choice.function.name", "none of the tools has this name")
        for index, tool in enumerate(allowed.tools if allowed else ()):
            if tool.function.name not in names:
                path = f"tool_choice.allowed_tools.tools[{index}].function.name"
                raise _refusal(path, "none of the tools has this name")


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
