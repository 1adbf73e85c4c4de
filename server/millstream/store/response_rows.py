"""Rows of responses, with their items: begun, finished, read, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    Connection,
    Integer,
    bindparam,
    insert,
    literal,
    select,
    update,
)

from millstream.store.chat_rows import enter_chat, leave_chat
from millstream.store.conversation_rows import items_before, lock, unlock
from millstream.store.event_rows import (
    delete_events,
)
from millstream.store.item_rows import (
    delete_items_of_response,
    insert_items,
    to_items,
)
from millstream.store.json_text import from_text, to_key, to_text
from millstream.store.records import StoredItem, StoredResponse
from millstream.store.tables import is_running, items, responses

_ROW_BYTES = 500
_LONGEST_CHAIN = 100_000
_INSERT = insert(responses)
_SELECT = select(
    responses.c.id,
    responses.c.owner,
    responses.c.kind,
    responses.c.created,
    responses.c.status,
    responses.c.previous_id,
    responses.c.conversation_id,
    responses.c.is_resumable,
    responses.c.resource,
    responses.c.chat_id,
    responses.c.timing,
)
_SELECT_ONE = _SELECT.add_columns(responses.c.used).where(
    responses.c.id == bindparam("b_id"), responses.c.owner == bindparam("b_owner")
)


def _chain() -> CTE:
    """A response, the one before, and so on; each a row."""
    columns = [
        responses.c.id,
        responses.c.previous_id,
        responses.c.conversation_id,
        responses.c.used,
    ]
    owned = responses.c.owner == bindparam("b_owner")
    start = select(*columns, literal(0, Integer).label("depth"))
    chain = start.where(responses.c.id == bindparam("b_id"), owned).cte("chain", recursive=True)
    earlier = select(*columns, chain.c.depth + 1).where(
        responses.c.id == chain.c.previous_id, owned, chain.c.depth < _LONGEST_CHAIN
    )
    return chain.union_all(earlier)


_CHAIN = _chain()
_CHAIN_ROWS = select(_CHAIN).order_by(_CHAIN.c.depth)
_CHAIN_ITEMS = (
    select(items.c.id, items.c.data)
    .join(_CHAIN, items.c.response_id == _CHAIN.c.id)
    .order_by(_CHAIN.c.depth.desc(), items.c.key)
)


def insert_response(
    connection: Connection,
    response: StoredResponse,
    inputs: Sequence[StoredItem],
    *,
    server: str,
    now: int,
) -> None:
    """Writes a response that begins, and its inputs; takes its conversation's lock, or chat's leaf.

    Raises ConversationLocked, or NotFound for what is not its owner's.
    """
    key = to_key(response.id)
    if response.conversation_id is not None:
        lock(connection, response.conversation_id, owner=response.owner, holder=key, now=now)
    size = insert_items(
        connection, inputs, owner=response.owner, response_id=key, direction="input"
    )
    row = response_row(response, size, server=server, now=now)
    if response.chat_id is not None:
        row |= enter_chat(connection, response.chat_id, inputs, response=row)
    connection.execute(_INSERT, row)


def response_row(
    response: StoredResponse, size_of_items: int, *, server: str, now: int
) -> dict[str, Any]:
    """Its row, but for its place in a chat."""
    resource = to_text(response.resource)
    return {
        "id": to_key(response.id),
        "owner": response.owner,
        "kind": response.kind,
        "created": response.created,
        "status": response.status,
        "previous_id": None if response.previous_id is None else to_key(response.previous_id),
        "conversation_id": response.conversation_id and to_key(response.conversation_id),
        "is_resumable": response.is_resumable,
        "resource": resource,
        "server": server,
        "used": now,
        "size": size_of_items + len(resource) + _ROW_BYTES,
    }


def update_status(connection: Connection, response_id: str, status: str) -> None:
    """Changes that of a response that is not finished."""
    mine = responses.c.id == to_key(response_id)
    connection.execute(update(responses).where(mine, is_running).values(status=status))


def read_response(
    connection: Connection, response_id: str, *, owner: str
) -> tuple[StoredResponse, int] | None:
    """The response, and when it was last used."""
    row = connection.execute(_SELECT_ONE, {"b_id": to_key(response_id), "b_owner": owner}).first()
    return None if row is None else (to_response(row), row.used)


def read_running(connection: Connection) -> list[tuple[StoredResponse, str]]:
    """All responses that are not finished, with the lease of the server of each."""
    rows = connection.execute(_SELECT.add_columns(responses.c.server).where(is_running)).all()
    return [(to_response(row), row.server) for row in rows]


def delete_response(connection: Connection, response_id: str, *, owner: str) -> bool:
    """Whether there was one. What is a conversation's stays there."""
    key = to_key(response_id)
    mine = (responses.c.id == key) & (responses.c.owner == owner)
    conversation_id = connection.execute(select(responses.c.conversation_id).where(mine)).first()
    if conversation_id is None:
        return False
    if conversation_id[0] is not None:
        unlock(connection, conversation_id[0], holder=key)
    leave_chat(connection, key)
    delete_items_of_response(connection, key)
    delete_events(connection, key)
    connection.execute(responses.delete().where(mine))
    return True


def read_context(
    connection: Connection, response_id: str, *, owner: str
) -> tuple[list[StoredItem], list[str], int] | None:
    """What a response that follows is told; the chain of responses; the oldest use among them.

    None if the response, or one that it builds on, is not there.
    """
    rows = connection.execute(_CHAIN_ROWS, {"b_id": to_key(response_id), "b_owner": owner}).all()
    if not rows or rows[-1].previous_id is not None:
        return None
    told: list[StoredItem] = []
    if rows[-1].conversation_id is not None:
        told = items_before(connection, rows[-1].conversation_id, response_id=rows[-1].id)
    told += to_items(connection.execute(_CHAIN_ITEMS, {"b_id": rows[0].id, "b_owner": owner}))
    return told, [row.id for row in rows], min(row.used for row in rows)


def to_response(row: Any) -> StoredResponse:
    """The response of a row."""
    return StoredResponse(
        id=row.id,
        owner=row.owner,
        kind=row.kind,
        created=row.created,
        status=row.status,
        previous_id=row.previous_id,
        conversation_id=row.conversation_id,
        is_resumable=row.is_resumable,
        resource=from_text(row.resource),
        chat_id=row.chat_id,
        timing=None if row.timing is None else from_text(row.timing),
    )
