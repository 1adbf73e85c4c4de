"""What is stored, as those see it who store it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RUNNING = ("queued", "in_progress")
"""Statuses of a response that is not finished yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """One answer. `status` is what counts, whatever `resource` says of it.

    kind: "response", or "chat" for a chat completion that can be resumed
    created: in seconds since 1970
    is_resumable: whether its events are kept and may be read again
    chat_id: the chat of whose tree it is a part; it follows `previous_id` there
    timing: how long what of it took; None if nobody has measured it to its end
    resource: the object of the API without `output`; of a chat the whole completion, once finished
    """

    id: str
    owner: str
    kind: str
    created: int
    status: str
    previous_id: str | None
    conversation_id: str | None
    is_resumable: bool
    resource: dict[str, Any]
    chat_id: str | None = None
    timing: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConversation:
    """A list of items that responses are made in. created: in seconds since 1970."""

    id: str
    owner: str
    created: int
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChat:
    """A tree of responses. created: in seconds since 1970

    changed: when something was last said in it, in microseconds
    title: its owner's; first_words: what stands for a title as long as there is none
    settings: fields of a request that every message of it has
    leaf: the response where the current branch ends; None for an empty chat
    """

    id: str
    owner: str
    created: int
    changed: int
    title: str | None = None
    first_words: str | None = None
    settings: dict[str, Any]
    leaf: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """A message, a call, or what else a conversation is made of; `data` as the API shows it."""

    id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One response with what it was asked and what it said; the latter is stored when it ends."""

    response: StoredResponse
    inputs: Sequence[StoredItem]
    outputs: Sequence[StoredItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """The events `first` to `last`, both included; `frames` are those of the stream, joined."""

    first: int
    last: int
    frames: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list."""

    items: list[StoredItem]
    has_more: bool
