"""What answers look like: shapes for the API document, which tests hold real answers against.

A field that is not always there is NotRequired; one that may be null says so.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from millstream.api.openai.generate.shared_shapes import PromptLogprob, Usage
from millstream.api.wire.closed_shapes import closed

FinishReason = Literal["stop", "length", "tool_calls"]
Byte = Annotated[int, Field(ge=0, le=255)]


@closed
class TopLogprob(TypedDict):
    token: str
    bytes: list[Byte]
    logprob: float


@closed
class ContentLogprob(TypedDict):
    token: str
    bytes: list[Byte]
    logprob: float
    top_logprobs: list[TopLogprob]


@closed
class ChoiceLogprobs(TypedDict):
    content: list[ContentLogprob]
    refusal: None


@closed
class CalledFunction(TypedDict):
    """arguments: JSON, as the model wrote it."""

    name: str
    arguments: str


@closed
class MadeToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


@closed
class AnswerMessage(TypedDict):
    """reasoning_content, reasoning: two names of one thing."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[MadeToolCall]]


@closed
class AnswerChoice(TypedDict):
    """stop_reason: the stop string, or the token of `stop_token_ids`, that ended the answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    token_ids: list[int] | None


@closed
class ChatCompletion(TypedDict):
    """The whole answer. prompt_logprobs: one object per prompt token, keyed by token id.

    What is null was not asked for.
    """

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[AnswerChoice]
    usage: Usage
    prompt_token_ids: list[int] | None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None


@closed
class FunctionDelta(TypedDict):
    name: NotRequired[str]
    arguments: str


@closed
class ToolCallDelta(TypedDict):
    """id, type and name come once, with the first delta of a call."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


@closed
class MessageDelta(TypedDict):
    role: NotRequired[Literal["assistant"]]
    content: str
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta]]


@closed
class ChunkChoice(TypedDict):
    """stop_reason: there with the finish_reason; see AnswerChoice."""

    index: int
    delta: MessageDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: NotRequired[str | int | None]
    token_ids: NotRequired[list[int]]


@closed
class ChatCompletionChunk(TypedDict):
    """The data of one event. choices is empty in the last one, if usage was asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]
    prompt_token_ids: NotRequired[list[int]]
