"""What the Conversations API answers: shapes for the API document, and for tests."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed


@closed
class ConversationObject(TypedDict):
    """created_at: seconds since the epoch."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


@closed
class DeletedConversation(TypedDict):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]
