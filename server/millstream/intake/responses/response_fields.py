"""Every field of POST /v1/responses, each checked alone.

Sources: OpenAI's OpenAPI document, `CreateResponse`; the Open Responses specification; vLLM's
extensions for sampling, as the chat route takes them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from millstream.intake.fields.delivery import MAX_SECONDS
from millstream.intake.fields.reasoning import ReasoningEffort
from millstream.intake.fields.response_format import ResponseFormat
from millstream.intake.fields.tool_choice import MAX_AGENT_TOOLS
from millstream.intake.requests.chat import Metadata
from millstream.intake.responses.item_kinds import Id
from millstream.intake.responses.items import MAX_ITEMS
from millstream.intake.sampling_fields import MAX_TOP_LOGPROBS, DrawingFields
from millstream.intake.strict_body import Body, tag


class TextWishes(Body):
    """verbosity: a hint."""

    format: ResponseFormat | None = None
    verbosity: Any = None


class ReasoningWishes(Body):
    """context, mode: values that ask for what happens anyway. All but effort is else a hint."""

    effort: ReasoningEffort | None = None
    summary: Any = None
    generate_summary: Any = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class StreamWishes(Body):
    """include_obfuscation: a hint."""

    include_obfuscation: Any = None


class ConversationWish(Body):
    id: Id


class ResponseFields(DrawingFields):
    """The body. Of the type Any is what hints and checks of our own look at."""

    input: (
        Annotated[
            Annotated[str, Tag("text")]
            | Annotated[list[Any], Field(max_length=MAX_ITEMS), Tag("parts")],
            Discriminator(tag(of_list="parts", otherwise="text")),
        ]
        | None
    ) = None
    instructions: str | None = None
    previous_response_id: Id | None = None
    conversation: (
        Annotated[
            Annotated[Id, Tag("text")] | Annotated[ConversationWish, Tag("parts")],
            Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
        ]
        | None
    ) = None
    model: str | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamWishes | None = None
    include_: list[str] | None = Field(None, alias="include", max_length=64)
    metadata: Metadata | None = None

    text: TextWishes | None = None
    reasoning: ReasoningWishes | None = None
    tools: list[Any] | None = Field(None, max_length=MAX_AGENT_TOOLS)
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    truncation: Literal["auto", "disabled"] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    chat_template_kwargs: dict[str, Any] | None = None
    timeout: float | None = Field(None, gt=0, le=MAX_SECONDS)

    client_metadata: Any = None
    max_tool_calls: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    user: Any = None

    @property
    def conversation_id(self) -> str | None:
        given = self.conversation
        return given.id if isinstance(given, ConversationWish) else given

    @property
    def include(self) -> frozenset[str]:
        return frozenset(self.include_ or ())

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or "message.output_text.logprobs" in self.include
