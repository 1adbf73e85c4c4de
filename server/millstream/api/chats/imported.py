"""Chats that come as files: checked to the last field, and made the chat of whoever brings them.

Rules: everything gets a new id, so that nothing of anybody can be meant by the old ones; what was
the same thing in two places of the file is the same afterwards, so versions stay versions. An
answer that was being made when the file was written was cut then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from millstream.api.chats.bodies import check_settings
from millstream.api.chats.chat_file import ChatFile, FileTurn
from millstream.api.chats.finding import new_chat
from millstream.errors import InvalidRequest
from millstream.intake.known_fields import unknown_field
from millstream.intake.responses.items import Item, new_item_id, read_items
from millstream.intake.strict_body import invalid
from millstream.store.records import RUNNING, ChatTurn, StoredChat, StoredItem, StoredResponse

_LARGEST = 2**53


@dataclass(frozen=True, slots=True)
class ImportedChat:
    """A chat that is not stored yet. turns: in the order in which they were begun."""

    chat: StoredChat
    turns: list[ChatTurn]


def read_chat_file(body: dict[str, Any], *, owner: str) -> ImportedChat:
    """The chat of a document. Raises InvalidRequest that names the field."""
    file = _checked(body)
    check_settings(file.settings)
    ids = {turn.response["id"]: f"resp_{secrets.token_hex(24)}" for turn in file.responses}
    reader = _TurnReader(ids, owner=owner)
    turns = [reader.read(turn, place) for place, turn in enumerate(file.responses)]
    if file.leaf is not None and file.leaf not in ids:
        raise _refusal("leaf", "no response of this file has this id")
    if file.leaf is None and ids:
        raise _refusal("leaf", "should be one of the responses")
    chat = new_chat(owner, title=file.title, settings=file.settings, created=file.created_at)
    leaf = None if file.leaf is None else ids[file.leaf]
    return ImportedChat(replace(chat, leaf=leaf), turns)


class _TurnReader:
    """Reads the turns of one file in their order. ids: the new one of each response."""

    def __init__(self, ids: dict[str, str], *, owner: str) -> None:
        self._ids = ids
        self._owner = owner
        self._known: set[str] = set()
        self._items: dict[str, str] = {}

    def read(self, turn: FileTurn, place: int) -> ChatTurn:
        path = f"responses[{place}]"
        response: dict[str, Any] = {**turn.response}
        old = response["id"]
        if not 0 < len(old) <= 256:
            raise _refusal(f"{path}.response.id", "should have 1 to 256 letters")
        if old in self._known:
            raise _refusal(f"{path}.response.id", "another response has it")
        if turn.follows is not None and turn.follows not in self._known:
            raise _refusal(f"{path}.follows", "no response before this one has this id")
        self._known.add(old)
        if response["conversation"] is not None:
            raise _refusal(f"{path}.response.conversation", "should be null: it is of a chat")
        _check_numbers(turn, path=path)
        outputs = read_items(response.pop("output"), path=f"{path}.response.output")
        inputs = read_items(turn.input, path=f"{path}.input")
        for number, item in enumerate(inputs):
            if item["type"] == "item_reference":
                raise _refusal(f"{path}.input[{number}].type", "should be an item, not a reference")
        return ChatTurn(
            self._response(turn, response),
            [self._renamed(item) for item in inputs],
            [self._renamed(_ended(item)) for item in outputs],
        )

    def _response(self, turn: FileTurn, resource: dict[str, Any]) -> StoredResponse:
        status = "cancelled" if resource["status"] in RUNNING else resource["status"]
        identifier = self._ids[resource["id"]]
        previous_id = None if turn.follows is None else self._ids[turn.follows]
        own = {"id": identifier, "previous_response_id": previous_id, "status": status}
        return StoredResponse(
            id=identifier,
            owner=self._owner,
            kind="response",
            created=resource["created_at"],
            status=status,
            previous_id=previous_id,
            conversation_id=None,
            is_resumable=False,
            resource={**resource, **own, "store": True},
            timing=turn.timing,
        )

    def _renamed(self, item: Item) -> StoredItem:
        new = self._items.setdefault(item["id"], new_item_id(item["type"]))
        return StoredItem(id=new, data={**item, "id": new})


def _checked(body: dict[str, Any]) -> ChatFile:
    for name in body:
        if name not in ChatFile.model_fields:
            raise unknown_field(name)
    try:
        return ChatFile.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        first["loc"] = tuple(_without_kinds(first["loc"]))
        raise invalid(first) from error


def _without_kinds(loc: tuple[int | str, ...]) -> Iterator[int | str]:
    """A place without the type of an output item, which is no member on the way to it."""
    for number, part in enumerate(loc):
        if number < 2 or loc[number - 2] != "output":
            yield part


def _check_numbers(turn: FileTurn, *, path: str) -> None:
    """Raises InvalidRequest for times and counts that nothing can have."""
    response = turn.response
    named: dict[str, Any] = {f"response.{name}": response[name] for name in ("created_at",)}
    named["response.completed_at"] = response["completed_at"]
    named |= {f"timing.{name}": value for name, value in (turn.timing or {}).items()}
    named |= dict(_leaves(response["usage"] or {}, "response.usage"))
    for name, value in named.items():
        if value is not None and not 0 <= value < _LARGEST:
            raise _refusal(f"{path}.{name}", "should be at least 0, and no huge number")


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value


def _ended(item: Item) -> Item:
    return item | {"status": "incomplete"} if item.get("status") == "in_progress" else item


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
