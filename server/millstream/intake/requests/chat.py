"""The body of POST /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from millstream.intake.fields.chat_messages import Message
from millstream.intake.fields.delivery import DeliveryFields
from millstream.intake.fields.formats import FormatFields
from millstream.intake.fields.reasoning import ReasoningFields
from millstream.intake.fields.tools import ToolFields
from millstream.intake.first_error import at_most
from millstream.intake.sampling_fields import MAX_TOP_LOGPROBS, SamplingFields

MAX_MESSAGES = 10_000

Label = Annotated[str, StringConstraints(max_length=512)]
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
Metadata = Annotated[dict[MetadataKey, Label], Field(max_length=16), at_most(16)]


class ChatRequest(SamplingFields, FormatFields, ToolFields, ReasoningFields, DeliveryFields):
    """Every accepted field of a chat request."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # Words for the log; what they ask of OpenAI's own service has no counterpart here.
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    metadata: Metadata | None = None

    @property
    def started_thought(self) -> str | None:
        """What the model has thought of its answer already, and goes on to think."""
        return None

    @property
    def ends_in_assistant_text(self) -> bool:
        """Whether the last message is one that an answer could go on with."""
        last = self.messages[-1]
        return last.role == "assistant" and bool(last.text) and not last.calls

    @property
    def is_continued(self) -> bool:
        """Whether the answer goes on in the last message: unless the request says otherwise."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return self.add_generation_prompt is None and self.ends_in_assistant_text

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives to report with each token; None reports nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None
