"""Every field of POST /v1/messages, each checked alone.

Sources: Anthropic's SDK 2.14, `MessageCreateParams`, plain and beta; vLLM's extensions for
sampling, as the chat route takes them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from millstream.intake.fields.delivery import MAX_SECONDS
from millstream.intake.fields.tool_choice import MAX_AGENT_TOOLS
from millstream.intake.messages.tools import GivenChoice
from millstream.intake.requests.chat import MAX_MESSAGES
from millstream.intake.sampling_fields import MAX_STOPS, DrawingFields, StopString
from millstream.intake.strict_body import Body

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ThinkingWish(Body):
    """budget_tokens: a hint. display: whether thoughts are shown in the answer."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Any = None
    display: Literal["summarized", "omitted"] | None = None


class AnswerForm(Body):
    """A form that the answer is held to."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    effort: Effort | None = None
    format: AnswerForm | None = None


class KeptTurns(Body):
    """So many of the last answers keep their thoughts."""

    type: Literal["thinking_turns"]
    value: Annotated[int, Field(ge=1)]


class ContextEdit(Body):
    """Earlier thoughts are left out of the prompt. keep: one turn's, if it is not given."""

    type: Literal["clear_thinking_20251015"]
    keep: Any = None


class ContextManagement(Body):
    edits: list[ContextEdit] | None = Field(None, max_length=16)


class UserName(Body):
    """user_id: a hint."""

    user_id: Any = None


class CountedFields(Body):
    """Those that the prompt depends on, and hints. Of the type Any is what hints and checks of our
    own look at. output_format: the older place of output_config.format."""

    model: str | None = None
    messages: list[Any] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: Any = None
    tools: list[Any] | None = Field(None, max_length=MAX_AGENT_TOOLS)
    tool_choice: GivenChoice | None = None
    thinking: ThinkingWish | None = None
    output_config: OutputConfig | None = None
    output_format: AnswerForm | None = None
    context_management: ContextManagement | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    betas: Any = None
    cache_control: Any = None
    diagnostics: Any = None
    inference_geo: Any = None
    metadata: UserName | None = None
    service_tier: Any = None
    speed: Any = None
    user_profile_id: Any = None

    @property
    def effort(self) -> Effort | None:
        """How much to think; None leaves it to the model."""
        given = None if self.output_config is None else self.output_config.effort
        if self.thinking is None:
            return given
        return "none" if self.thinking.type == "disabled" else given or "medium"

    @property
    def is_parallel(self) -> bool | None:
        """Whether several tools may be called; None if nothing is said of it."""
        choice = self.tool_choice
        return False if choice is not None and choice.disable_parallel_tool_use else None


class MessageFields(CountedFields, DrawingFields):
    """The body."""

    max_tokens: int = Field(ge=0)
    stop_sequences: list[StopString] | None = Field(None, max_length=MAX_STOPS)
    stream: bool | None = None
    timeout: float | None = Field(None, gt=0, le=MAX_SECONDS)
