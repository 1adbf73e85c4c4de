"""Fields that offer tools to the model, and those that demand calls.

Sources: OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`; the tools of the Responses API.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Discriminator, Field, StringConstraints, Tag

from millstream.errors import InvalidRequest
from millstream.intake.fields.foreign_keys import (
    Reads,
    ToolKeys,
    keys_for_template,
    reads_nothing,
)
from millstream.intake.fields.tool_choice import MAX_TOOLS, ToolChoice
from millstream.intake.strict_body import Body

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class FunctionTool(ToolKeys):
    """parameters: a JSON schema of the arguments. strict: whether calls are held to it.

    return: null, as transformers writes it for functions that say nothing of what they return.
    """

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    return_: None = Field(None, alias="return")


class Tool(ToolKeys):
    """One that the model may call: in `function`, or beside the type, as in the Responses API.

    strict: also beside `function`. strict_is_wish: whether a model whose calls cannot be held to
    anything may call it all the same.
    """

    strict_is_wish: ClassVar[bool] = False

    type: Literal["function"]
    function: FunctionTool | None = None
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def called(self) -> FunctionTool:
        """The function, wherever it was written. To be asked after `check_tools()`."""
        if self.function is not None:
            if self.strict is None:
                return self.function
            return self.function.model_copy(update={"strict": self.strict})
        assert self.name is not None
        names = ("name", "description", "parameters", "strict")
        return FunctionTool.model_validate({name: getattr(self, name) for name in names})

    def path(self, member: str) -> str:
        """The place of a member of the function within the tool."""
        is_beside = self.function is None or (member == "strict" and self.strict is not None)
        return member if is_beside else f"function.{member}"

    def to_template(self, reads: Reads = reads_nothing) -> dict[str, Any]:
        """The tool as chat templates expect it: without what was not given.

        reads: tells which foreign keys the template gets.
        """
        called = self.called
        function: dict[str, Any] = {"name": called.name}
        if called.description is not None:
            function["description"] = called.description
        if called.parameters is not None:
            function["parameters"] = called.parameters
        function |= keys_for_template(called, reads)
        return {"type": "function", "function": function} | keys_for_template(self, reads)


class WantedCalls(NamedTuple):
    """Calls that are held to their tools' schemas.

    param: the path of the field that asks for it. places: of the tools that may be called.
    is_forced: whether one must be. max_calls: None for as many as the model likes.
    is_wish: whether they may be free where nothing holds the model's calls.
    """

    param: str
    places: tuple[int, ...]
    is_forced: bool
    max_calls: int | None
    is_wish: bool = False


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
        if self._choice == "none":
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
        choice = self._choice
        if isinstance(choice, str):
            return choice not in ("none", "auto", "required")
        return choice is not None and choice.type == "function"

    @property
    def wanted_calls(self) -> WantedCalls | None:
        """The calls that have to come, or to be right; None if the model calls what it likes as it
        likes. To be asked after `check_tools()`."""
        if not self.offered_tools:
            return None
        tools = self.tools or ()
        functions = [tool.called for tool in tools]
        places = {function.name: place for place, function in enumerate(functions)}
        choice = self._choice
        names, mode, param, is_wish = list(places), "auto", "tool_choice", False
        if isinstance(choice, ToolChoice) and choice.allowed_tools is not None:
            mode = choice.allowed_tools.mode
            names = [tool.called for tool in choice.allowed_tools.tools]
        elif self.is_tool_named:
            mode, names = "required", [self._named]
        elif choice == "required":
            mode = "required"
        else:
            strict = [place for place, function in enumerate(functions) if function.strict]
            if not strict:
                return None
            param = f"tools[{strict[0]}].{tools[strict[0]].path('strict')}"
            is_wish = all(tools[place].strict_is_wish for place in strict)
        is_single = self.is_tool_named or self.parallel_tool_calls is False
        return WantedCalls(
            param,
            tuple(sorted({places[name] for name in names})),
            is_forced=mode == "required",
            max_calls=1 if is_single else None,
            is_wish=is_wish,
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
            _check_tool(tool, path=f"tools[{index}]")
            name = tool.called.name
            if name in names:
                raise _refusal(f"tools[{index}].{tool.path('name')}", f"{name} is there twice")
            names.add(name)
        choice = self._choice
        if isinstance(choice, ToolChoice):
            choice.check(names)
        elif self.is_tool_named and choice not in names:
            raise _refusal("tool_choice", "none, auto, required or the name of one of the tools")
        if not names and choice not in (None, "none", "auto"):
            raise _refusal("tool_choice", "there are no tools to call")

    @property
    def _choice(self) -> str | ToolChoice | None:
        """The choice in OpenAI's words: modes written as objects, and Anthropic's "any"."""
        choice = self.tool_choice
        if isinstance(choice, ToolChoice):
            choice = choice.mode or choice
        is_mode = choice == "any" and all(tool.called.name != "any" for tool in self.tools or ())
        return "required" if is_mode else choice

    @property
    def _named(self) -> str:
        choice = self._choice
        if isinstance(choice, ToolChoice):
            return choice.called
        assert choice is not None
        return choice


def _check_tool(tool: Tool, *, path: str) -> None:
    """Raises InvalidRequest for a tool without a function, and one that has members twice."""
    function = tool.function
    if function is None:
        if tool.name is None:
            raise _refusal(f"{path}.function", "Field required")
        return
    for name in ("name", "description", "parameters"):
        if getattr(tool, name) is not None:
            raise _refusal(f"{path}.{name}", "function says it; send one of them")
    if None not in (tool.strict, function.strict) and tool.strict != function.strict:
        raise _refusal(f"{path}.strict", "function.strict differs; send one of them")


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
