"""Fields that offer tools to the model.

Sources: OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`. A call cannot be forced and its
arguments are not held to their schema, so what asks for that is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from millstream.api.openai.schema.base import Body
from millstream.errors import InvalidRequest

MAX_TOOLS = 128

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionTool(Body):
    """parameters: a JSON schema of the arguments."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(Body):
    type: Literal["function"]
    function: FunctionTool

    def to_template(self) -> dict[str, Any]:
        """The tool as chat templates expect it: without what was not given."""
        function: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            function["description"] = self.function.description
        if self.function.parameters is not None:
            function["parameters"] = self.function.parameters
        return {"type": "function", "function": function}


class ToolFields(Body):
    """One part of a chat request."""

    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None

    @property
    def offered_tools(self) -> list[dict[str, Any]]:
        """The tools that this answer may call."""
        if self.tool_choice == "none":
            return []
        return [tool.to_template() for tool in self.tools or ()]

    def check_tools(self) -> None:
        """Raises InvalidRequest for two tools of one name."""
        names: set[str] = set()
        for index, tool in enumerate(self.tools or ()):
            if tool.function.name in names:
                path = f"tools[{index}].function.name"
                raise InvalidRequest(f"{path}: {tool.function.name} is there twice", param=path)
            names.add(tool.function.name)
