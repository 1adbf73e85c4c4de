"""What messages look like: shapes for the API document, which tests hold real answers against."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


@closed
class OutputTokensDetails(TypedDict):
    thinking_tokens: int


@closed
class MessageUsage(TypedDict):
    """input_tokens: without those that were cached."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    service_tier: Literal["standard"]


@closed
class MadeText(TypedDict):
    type: Literal["text"]
    text: str


@closed
class MadeThinking(TypedDict):
    """signature: to be sent back with the block. It has the thoughts, if they are not shown."""

    type: Literal["thinking"]
    thinking: str
    signature: str


@closed
class MadeToolUse(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


MadeBlock = MadeText | MadeThinking | MadeToolUse


@closed
class MadeMessage(TypedDict):
    """The whole answer, or, in the first event of a stream, its head."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[MadeBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


@closed
class MessageStart(TypedDict):
    type: Literal["message_start"]
    message: MadeMessage


@closed
class BlockStart(TypedDict):
    type: Literal["content_block_start"]
    index: int
    content_block: MadeBlock


@closed
class TextNews(TypedDict):
    type: Literal["text_delta"]
    text: str


@closed
class ThinkingNews(TypedDict):
    type: Literal["thinking_delta"]
    thinking: str


@closed
class SignatureNews(TypedDict):
    type: Literal["signature_delta"]
    signature: str


@closed
class InputNews(TypedDict):
    """partial_json: of the call's input, which all of them together are."""

    type: Literal["input_json_delta"]
    partial_json: str


@closed
class BlockDelta(TypedDict):
    type: Literal["content_block_delta"]
    index: int
    delta: TextNews | ThinkingNews | SignatureNews | InputNews


@closed
class BlockStop(TypedDict):
    type: Literal["content_block_stop"]
    index: int


@closed
class Ending(TypedDict):
    stop_reason: StopReason
    stop_sequence: str | None


@closed
class MessageNews(TypedDict):
    """usage: of the whole message."""

    type: Literal["message_delta"]
    delta: Ending
    usage: MessageUsage


@closed
class MessageStop(TypedDict):
    type: Literal["message_stop"]


@closed
class Ping(TypedDict):
    """An event that says that the server is still there."""

    type: Literal["ping"]


MessageEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageNews | MessageStop | Ping


@closed
class TokenCount(TypedDict):
    input_tokens: int


@closed
class ListedModel(TypedDict):
    """max_input_tokens: of prompt and answer together; null while the model loads. max_tokens: of
    the longest answer; null if the context alone limits it."""

    id: str
    type: Literal["model"]
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int | None
    max_tokens: int | None


@closed
class ModelPage(TypedDict):
    data: list[ListedModel]
    has_more: Literal[False]
    first_id: str
    last_id: str
