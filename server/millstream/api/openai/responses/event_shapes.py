"""The events of a streamed response: shapes for the API document, and for tests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict

from millstream.api.openai.chat.shapes import ContentLogprob
from millstream.api.openai.responses.shapes import (
    OutputItem,
    OutputTextPart,
    ReasoningTextPart,
    ResponseObject,
)
from millstream.api.wire.closed_shapes import closed


@closed
class ResponseStateEvent(TypedDict):
    """The whole response: at its beginning, and at its end."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: ResponseObject


@closed
class OutputItemEvent(TypedDict):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


@closed
class ContentPartEvent(TypedDict):
    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: Annotated[OutputTextPart | ReasoningTextPart, Field(discriminator="type")]


@closed
class OutputTextDelta(TypedDict):
    type: Literal["response.output_text.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[ContentLogprob]


@closed
class OutputTextDone(TypedDict):
    type: Literal["response.output_text.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[ContentLogprob]


@closed
class ReasoningTextDelta(TypedDict):
    type: Literal["response.reasoning_text.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str


@closed
class ReasoningTextDone(TypedDict):
    type: Literal["response.reasoning_text.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str


@closed
class CallDelta(TypedDict):
    type: Literal["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


@closed
class FunctionCallDone(TypedDict):
    type: Literal["response.function_call_arguments.done"]
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


@closed
class CustomCallDone(TypedDict):
    type: Literal["response.custom_tool_call_input.done"]
    sequence_number: int
    item_id: str
    output_index: int
    input: str


ResponseEvent = Annotated[
    ResponseStateEvent
    | OutputItemEvent
    | ContentPartEvent
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | CallDelta
    | FunctionCallDone
    | CustomCallDone,
    Field(discriminator="type"),
]


@closed
class QueuePosition(TypedDict):
    """How many requests, this one included, wait until it is its turn; 1 for the next one."""

    type: Literal["queue.position"]
    position: int


WaitingEvent = Annotated[
    Annotated[QueuePosition, Tag("queue")] | Annotated[ResponseEvent, Tag("response")],
    Discriminator(lambda event: "queue" if event.get("type") == "queue.position" else "response"),
]
