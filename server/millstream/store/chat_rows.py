"""Rows of chats, and of the responses as a chat has them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    exists,
    func,
    null,
    or_,
    select,
    update,
)

from millstream.errors import InvalidRequest, NotFound
from millstream.store.chat_texts import first_words, searched_items, searched_text
from millstream.store.chat_tree import ChatNode, ChatTree
from millstream.store.json_text import from_text, to_key, to_text
from millstream.store.records import StoredChat, StoredItem
from millstream.store.tables import chats, events, items, responses

_ROW_BYTES = 400


def insert_chat(connection: Connection, chat: StoredChat, *, now: int) -> None:
    """Writes a new one."""
    connection.execute(chats.insert(), chat_row(chat, now=now))


def chat_row(chat: StoredChat, *, now: int) -> dict[str, Any]:
    """The row of an empty one."""
    settings = to_text(chat.settings)
    return {
        "id": to_key(chat.id),
        "owner": chat.owner,
        "created": chat.created,
        "changed": chat.changed,
        "title": chat.title,
        "searched_title": _searched(chat.title),
        "first_words": chat.first_words,
        "settings": settings,
        "leaf": None,
        "used": now,
        "size": len(settings) + _ROW_BYTES,
    }


def read_chat(connection: Connection, chat_id: str, *, owner: str) -> tuple[StoredChat, int] | None:
    """The chat, and when it was last used."""
    row = connection.execute(select(chats).where(owned_chat(chat_id, owner))).first()
    return None if row is None else (_to_chat(row), row.used)


def newest_chat(connection: Connection, *, owner: str) -> StoredChat | None:
    """The one in which its owner last said something."""
    mine = select(chats).where(chats.c.owner == owner)
    newest = mine.order_by(chats.c.changed.desc(), chats.c.id.desc()).limit(1)
    row = connection.execute(newest).first()
    return None if row is None else _to_chat(row)


def page_of_chats(
    connection: Connection, *, owner: str, after: str | None, limit: int, words: Sequence[str]
) -> tuple[list[StoredChat], bool]:
    """Those of an owner in whose title or texts all words are, the newest first; and whether there
    are more. Raises InvalidRequest if `after` is none of them."""
    mine = chats.c.owner == owner
    statement = select(chats).where(mine, *(_says(word) for word in words))
    statement = statement.order_by(chats.c.changed.desc(), chats.c.id.desc()).limit(limit + 1)
    if after is not None:
        place = select(chats.c.changed, chats.c.id).where(owned_chat(after, owner))
        found = connection.execute(place).first()
        if found is None:
            raise InvalidRequest(f"after: no chat of this list has the id {after!r}", param="after")
        same = (chats.c.changed == found.changed) & (chats.c.id < found.id)
        older = (chats.c.changed < found.changed) | same
        statement = statement.where(older)
    rows = connection.execute(statement).all()
    return [_to_chat(row) for row in rows[:limit]], len(rows) > limit


def update_chat(
    connection: Connection, chat_id: str, *, owner: str, changes: Mapping[str, Any], now: int
) -> StoredChat | None:
    """The chat as it is then. changes: of its title, settings and leaf."""
    values = {**changes, "used": now}
    if "settings" in changes:
        values["settings"] = to_text(changes["settings"])
        values["size"] = len(values["settings"]) + _ROW_BYTES
    if "title" in changes:
        values["searched_title"] = _searched(changes["title"])
    mine = owned_chat(chat_id, owner)
    connection.execute(update(chats).where(mine).values(values))
    found = read_chat(connection, chat_id, owner=owner)
    return None if found is None else found[0]


def delete_chat(connection: Connection, chat_id: str, *, owner: str) -> bool:
    """Whether there was one. Its responses go with it."""
    if connection.execute(chats.delete().where(owned_chat(chat_id, owner))).rowcount == 0:
        return False
    _delete_responses(connection, to_key(chat_id))
    return True


def clear_chat(connection: Connection, chat_id: str, *, owner: str, now: int) -> StoredChat | None:
    """The chat, without its responses."""
    empty = {"leaf": null(), "first_words": null(), "changed": _microseconds()}
    found = update_chat(connection, chat_id, owner=owner, changes=empty, now=now)
    if found is not None:
        _delete_responses(connection, to_key(chat_id))
    return found


def read_tree(connection: Connection, chat_id: str) -> ChatTree:
    """The responses of a chat."""
    statement = select(
        responses.c.id,
        responses.c.previous_id,
        responses.c.chat_question,
        responses.c.chat_number,
        responses.c.status,
    ).where(responses.c.chat_id == to_key(chat_id))
    rows = connection.execute(statement.order_by(responses.c.chat_number))
    return ChatTree([ChatNode(*row) for row in rows])


def enter_chat(
    connection: Connection,
    chat_id: str,
    inputs: Sequence[StoredItem],
    *,
    response: Mapping[str, Any],
) -> dict[str, Any]:
    """Makes a response that begins the chat's leaf. Returns the columns by which it is in it.

    response: its row so far. Raises NotFound for a chat that is not its owner's, or a response
    before it that is not in the chat.
    """
    mine, key = owned_chat(chat_id, response["owner"]), to_key(chat_id)
    entered = update(chats).where(mine)
    entered = entered.values(
        leaf=response["id"],
        changed=_microseconds(),
        used=response["used"],
        first_words=func.coalesce(chats.c.first_words, first_words(inputs)),
    )
    if connection.execute(entered).rowcount == 0:
        raise NotFound(f"there is no chat {chat_id!r}", param="id", code="chat_not_found")
    previous_id = response["previous_id"]
    if previous_id is not None:
        before = (responses.c.id == previous_id) & (responses.c.chat_id == key)
        if connection.execute(select(responses.c.id).where(before)).first() is None:
            raise NotFound(
                f"there is no response {previous_id!r} in this chat",
                param="parent",
                code="response_not_found",
            )
    last = select(func.max(responses.c.chat_number)).where(responses.c.chat_id == key)
    return {
        "chat_id": key,
        "chat_number": (connection.execute(last).scalar() or 0) + 1,
        "chat_question": to_key(inputs[0].id) if inputs else None,
        "said": searched_items(inputs),
    }


def note_said(connection: Connection, response_key: str, outputs: Sequence[StoredItem]) -> None:
    """Lets what a response of a chat says be found."""
    more = "\n" + searched_items(outputs)
    mine = responses.c.id == response_key
    connection.execute(update(responses).where(mine).values(said=responses.c.said + more))


def leave_chat(connection: Connection, response_key: str) -> None:
    """Takes out of its chat's tree a response that is to be deleted, if it is in one: what followed
    it follows the one before."""
    mine = responses.c.id == response_key
    found = connection.execute(select(responses.c.chat_id, responses.c.previous_id).where(mine))
    row = found.first()
    if row is None or row.chat_id is None:
        return
    after = (responses.c.chat_id == row.chat_id) & (responses.c.previous_id == response_key)
    connection.execute(update(responses).where(after).values(previous_id=row.previous_id))
    is_leaf = (chats.c.id == row.chat_id) & (chats.c.leaf == response_key)
    connection.execute(update(chats).where(is_leaf).values(leaf=row.previous_id))


def owned_chat(chat_id: str, owner: str) -> ColumnElement[bool]:
    """The condition by which a chat is found."""
    return (chats.c.id == to_key(chat_id)) & (chats.c.owner == owner)


def _says(word: str) -> ColumnElement[bool]:
    """The condition of chats in whose title or texts a word is."""
    wanted = searched_text(word)
    said = and_(
        responses.c.chat_id == chats.c.id, responses.c.said.contains(wanted, autoescape=True)
    )
    return or_(chats.c.searched_title.contains(wanted, autoescape=True), exists().where(said))


def _searched(title: str | None) -> str | None:
    return None if title is None else searched_text(title)


def _delete_responses(connection: Connection, chat_key: str) -> None:
    made = select(responses.c.id).where(responses.c.chat_id == chat_key)
    connection.execute(events.delete().where(events.c.response_id.in_(made)))
    connection.execute(items.delete().where(items.c.response_id.in_(made)))
    connection.execute(responses.delete().where(responses.c.chat_id == chat_key))


def _microseconds() -> int:
    return time.time_ns() // 1000


def _to_chat(row: Any) -> StoredChat:
    return StoredChat(
        id=row.id,
        owner=row.owner,
        created=row.created,
        changed=row.changed,
        title=row.title,
        first_words=row.first_words,
        settings=from_text(row.settings),
        leaf=row.leaf,
    )
