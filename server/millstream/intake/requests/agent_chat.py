"""A chat request as the APIs of agents ask for one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from millstream.intake.fields.tool_choice import MAX_AGENT_TOOLS
from millstream.intake.fields.tools import Tool
from millstream.intake.requests.chat import ChatRequest


class AgentChat(ChatRequest):
    """One made of the body of another API, whose clients are agents.

    They bring more tools, and send an effort to every model, whether it thinks or not.
    """

    effort_is_wish: ClassVar[bool] = True

    tools: list[Tool] | None = Field(None, max_length=MAX_AGENT_TOOLS)
