"""What the routes of chats answer: shapes for the API document, and for tests."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from millstream.api.openai.responses.resource import ResponseStatus
from millstream.api.openai.responses.shapes import ResponseFailure, ResponseUsage
from millstream.api.openai.responses.timing import Timing
from millstream.api.wire.closed_shapes import closed


@closed
class ChatMessage(TypedDict):
    """One turn. id: of its first item if it was asked, else of the response.

    response_id: the response that the turn belongs to. versions: a response for each version of
    this turn, this one among them, in the order in which they were made. status, usage, error,
    timing: of an answer; null for what was asked. timing: null also for an answer whose server was
    gone before its end.
    """

    id: str
    role: Literal["user", "assistant", "tool"]
    response_id: str
    created_at: int
    items: list[dict[str, Any]]
    versions: list[str]
    status: ResponseStatus | None
    usage: ResponseUsage | None
    error: ResponseFailure | None
    timing: Timing | None


@closed
class ChatSummary(TypedDict):
    """title: null for an empty chat without one. is_titled: whether its owner has given it.

    created_at, updated_at: seconds since the epoch. leaf: the response where the current branch
    ends.
    """

    id: str
    object: Literal["chat"]
    created_at: int
    updated_at: int
    title: str | None
    is_titled: bool
    settings: dict[str, Any]
    leaf: str | None


@closed
class ChatObject(TypedDict):
    """running: responses of it that are being made. messages: those of the current branch."""

    id: str
    object: Literal["chat"]
    created_at: int
    updated_at: int
    title: str | None
    is_titled: bool
    settings: dict[str, Any]
    leaf: str | None
    running: list[str]
    messages: list[ChatMessage]


@closed
class DeletedChat(TypedDict):
    id: str
    object: Literal["chat.deleted"]
    deleted: Literal[True]


@closed
class ChatList(TypedDict):
    object: Literal["list"]
    data: list[ChatSummary]
    first_id: str | None
    last_id: str | None
    has_more: bool


@closed
class ChatMessageList(TypedDict):
    object: Literal["list"]
    data: list[ChatMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool
