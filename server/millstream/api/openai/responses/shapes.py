"""What the Responses API answers: shapes for the API document, which tests hold answers against.

Source: OpenAI's API reference, and the Open Responses specification where it asks for more: every
member of a response is there, null where it says nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from millstream.api.openai.chat.shapes import ContentLogprob
from millstream.api.openai.responses.resource import ResponseStatus
from millstream.api.wire.closed_shapes import closed

GrowingStatus = Literal["in_progress", "completed", "incomplete"]


@closed
class OutputTextPart(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ContentLogprob]


@closed
class ReasoningTextPart(TypedDict):
    type: Literal["reasoning_text"]
    text: str


@closed
class OutputMessage(TypedDict):
    id: str
    type: Literal["message"]
    status: GrowingStatus
    role: Literal["assistant"]
    content: list[OutputTextPart]


@closed
class OutputReasoning(TypedDict):
    """encrypted_content: the thoughts once more, if `include` asks for it; not encrypted."""

    id: str
    type: Literal["reasoning"]
    status: GrowingStatus
    summary: list[Any]
    content: list[ReasoningTextPart]
    encrypted_content: str | None


@closed
class OutputFunctionCall(TypedDict):
    """namespace: the group of tools that the function was offered in."""

    id: str
    type: Literal["function_call"]
    status: GrowingStatus
    call_id: str
    name: str
    namespace: NotRequired[str]
    arguments: str


@closed
class OutputCustomCall(TypedDict):
    id: str
    type: Literal["custom_tool_call"]
    status: GrowingStatus
    call_id: str
    name: str
    namespace: NotRequired[str]
    input: str


OutputItem = Annotated[
    OutputMessage | OutputReasoning | OutputFunctionCall | OutputCustomCall,
    Field(discriminator="type"),
]


@closed
class CachedTokens(TypedDict):
    """cached_tokens: found in the prefix cache, so not computed again."""

    cached_tokens: int
    cache_write_tokens: int


@closed
class ReasoningTokens(TypedDict):
    reasoning_tokens: int


@closed
class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


@closed
class ResponseFailure(TypedDict):
    code: str
    message: str


@closed
class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


@closed
class ConversationReference(TypedDict):
    id: str


@closed
class ResponseReasoning(TypedDict):
    effort: str | None
    summary: str | None


@closed
class ResponseText(TypedDict):
    format: dict[str, Any]
    verbosity: str


@closed
class ResponseObject(TypedDict):
    """A response. usage: null until it has ended."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    background: bool
    conversation: ConversationReference | None
    frequency_penalty: float
    instructions: str | list[dict[str, Any]] | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: ResponseReasoning
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: ResponseText
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    user: str | None


@closed
class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


@closed
class ItemList(TypedDict):
    """A page of items, each as it was sent or made."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@closed
class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


@closed
class Compaction(TypedDict):
    """output: the user's messages, then one item of type `compaction`, to be sent as input."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[dict[str, Any]]
    usage: ResponseUsage
