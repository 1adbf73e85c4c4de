"""A chat request as the APIs of agents ask for one."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from millstream.intake.fields.foreign_keys import Reads, reads_nothing
from millstream.intake.fields.tool_choice import MAX_AGENT_TOOLS
from millstream.intake.fields.tools import Tool
from millstream.intake.requests.chat import ChatRequest


class FormedTool(Tool):
    """A tool whose arguments are texts of a form that the model is told of in words.

    The patterns in its parameters are for whoever holds its calls to them.
    """

    strict_is_wish: ClassVar[bool] = True

    def to_template(self, reads: Reads = reads_nothing) -> dict[str, Any]:
        told = super().to_template(reads)
        parameters = told["function"]["parameters"]
        properties = {
            name: {keyword: value for keyword, value in schema.items() if keyword != "pattern"}
            for name, schema in parameters["properties"].items()
        }
        shown = {**parameters, "properties": properties}
        return {**told, "function": {**told["function"], "parameters": shown}}


class AgentChat(ChatRequest):
    """One made of the body of another API, whose clients are agents.

    They bring more tools, and send an effort to every model, whether it thinks or not.
    """

    effort_is_wish: ClassVar[bool] = True

    tools: list[Tool] | None = Field(None, max_length=MAX_AGENT_TOOLS)
    _started_thought: str | None = PrivateAttr(None)

    @property
    def started_thought(self) -> str | None:
        return self._started_thought

    def start_thought(self, text: str) -> None:
        """Lets the answer begin in the middle of a thought."""
        self._started_thought = text
