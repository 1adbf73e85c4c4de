"""Rows of items: those of a response, and those of a conversation, in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    insert,
    literal_column,
    null,
    select,
)

from millstream.errors import InvalidRequest
from millstream.store.json_text import from_text, to_key, to_text
from millstream.store.records import Page, StoredItem
from millstream.store.tables import items

_ROW_BYTES = 200
"""About what a row takes beside its data: ids, owner, indexes."""

_IDS_AT_ONCE = 500
"""A statement takes only so many values."""

_INSERT = insert(items)
_OUTSIDE = (
    (items.c.response_id == bindparam("b_id"))
    & (items.c.direction == literal_column("'input'"))
    & items.c.conversation_id.is_(None)
)
_COPY_INPUTS = insert(items).from_select(
    ["id", "owner", "response_id", "direction", "conversation_id", "data"],
    select(
        items.c.id,
        items.c.owner,
        items.c.response_id,
        items.c.direction,
        bindparam("b_conversation", type_=Text),
        items.c.data,
    )
    .where(_OUTSIDE)
    .order_by(items.c.key),
)
_DELETE_INPUTS = items.delete().where(_OUTSIDE)


def insert_items(
    connection: Connection,
    given: Sequence[StoredItem],
    *,
    owner: str,
    response_id: str | None = None,
    direction: str | None = None,
    conversation_id: str | None = None,
) -> int:
    """Writes them in order. Returns about how many bytes they take."""
    rows = item_rows(
        given,
        owner=owner,
        response_id=response_id,
        direction=direction,
        conversation_id=conversation_id,
    )
    if rows:
        connection.execute(_INSERT, rows)
    return size_of_items(rows)


def item_rows(
    given: Sequence[StoredItem],
    *,
    owner: str,
    response_id: str | None = None,
    direction: str | None = None,
    conversation_id: str | None = None,
) -> list[dict[str, Any]]:
    """Their rows, in order."""
    return [
        {
            "id": to_key(item.id),
            "owner": owner,
            "response_id": response_id,
            "direction": direction,
            "conversation_id": conversation_id,
            "data": to_text(item.data),
        }
        for item in given
    ]


def size_of_items(rows: Sequence[Mapping[str, Any]]) -> int:
    """About how many bytes the items of these rows take."""
    return sum(len(row["data"]) + _ROW_BYTES for row in rows)


def move_inputs(connection: Connection, response_id: str, conversation_id: str) -> None:
    """Puts a response's inputs at the end of the conversation, of which they are now a part."""
    connection.execute(_COPY_INPUTS, {"b_id": response_id, "b_conversation": conversation_id})
    connection.execute(_DELETE_INPUTS, {"b_id": response_id})


def delete_items_of_response(connection: Connection, response_id: str) -> None:
    """All its items, but those that are a conversation's, too: they stay there."""
    mine = items.c.response_id == response_id
    connection.execute(items.delete().where(mine, items.c.conversation_id.is_(None)))
    connection.execute(items.update().where(mine).values(response_id=null(), direction=null()))


def all_items(connection: Connection, *conditions: ColumnElement[bool]) -> list[StoredItem]:
    """Those that fulfil all conditions, in order."""
    return to_items(connection.execute(_select().where(*conditions).order_by(items.c.key)))


def items_by_id(
    connection: Connection, identifiers: Sequence[str], *, owner: str
) -> list[StoredItem]:
    """Those that the owner has, each once: the one that was written last."""
    keys = sorted({to_key(identifier) for identifier in identifiers})
    found: dict[str, StoredItem] = {}
    for start in range(0, len(keys), _IDS_AT_ONCE):
        wanted = items.c.id.in_(keys[start : start + _IDS_AT_ONCE])
        for item in all_items(connection, wanted, items.c.owner == owner):
            found[item.id] = item
    return list(found.values())


def page_of_items(
    connection: Connection,
    *conditions: ColumnElement[bool],
    after: str | None,
    limit: int,
    is_descending: bool,
) -> Page:
    """A page of those. Raises InvalidRequest if `after` is none of them."""
    order = items.c.key.desc() if is_descending else items.c.key
    statement = _select().where(*conditions).order_by(order).limit(limit + 1)
    if after is not None:
        place = select(items.c.key).where(*conditions, items.c.id == to_key(after)).limit(1)
        key = connection.execute(place).scalar()
        if key is None:
            raise InvalidRequest(f"after: no item of this list has the id {after!r}", param="after")
        statement = statement.where(items.c.key < key if is_descending else items.c.key > key)
    found = to_items(connection.execute(statement))
    return Page(items=found[:limit], has_more=len(found) > limit)


def to_items(rows: Iterable[Any]) -> list[StoredItem]:
    """Items of rows with id and data."""
    found = []
    for row in rows:
        data = from_text(row.data)
        found.append(StoredItem(id=data.get("id", row.id), data=data))
    return found


def _select() -> Select[Any]:
    return select(items.c.id, items.c.data)
