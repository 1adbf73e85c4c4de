"""What goes when: first what was not used for longest. What still runs, or is locked, stays.

Each function does a bounded part, in one operation of the writer's, so that others come between.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Table, exists, func, select, update

from millstream.store.chat_rows import delete_chat
from millstream.store.conversation_rows import delete_conversation
from millstream.store.response_rows import delete_response
from millstream.store.tables import chats, conversations, is_running, responses

_AT_ONCE = 100


class _Delete(Protocol):
    def __call__(self, connection: Connection, identifier: str, /, *, owner: str) -> bool: ...


_PAGES_AT_ONCE = 512

_OF_CHAT = responses.c.chat_id == chats.c.id
_CHAT_SIZE = chats.c.size + (
    select(func.coalesce(func.sum(responses.c.size), 0)).where(_OF_CHAT).scalar_subquery()
)
_KINDS: tuple[tuple[Table, ColumnElement[bool], ColumnElement[int], _Delete], ...] = (
    (responses, is_running | responses.c.chat_id.is_not(None), responses.c.size, delete_response),
    (
        conversations,
        conversations.c.locked_by.is_not(None),
        conversations.c.size,
        delete_conversation,
    ),
    (chats, exists().where(_OF_CHAT, is_running), _CHAT_SIZE, delete_chat),
)
"""What is deleted as a whole: its table, when it stays, what it takes, how it is deleted."""


def touch(connection: Connection, table: Table, keys: list[str], *, now: int) -> None:
    """Notes that they were used."""
    for start in range(0, len(keys), _AT_ONCE):
        mine = table.c.id.in_(keys[start : start + _AT_ONCE])
        connection.execute(update(table).where(mine).values(used=now))


def delete_unused(connection: Connection, *, before: int) -> int:
    """Deletes some that were last used before. Returns how many; 0 if none is left."""
    return _delete_oldest(connection, used_before=before, num_bytes=None)


def delete_largest_part(connection: Connection, *, limit_bytes: int) -> int:
    """Deletes some of the oldest if all take more than the limit. Returns how many."""
    excess = used_bytes(connection) - limit_bytes
    return _delete_oldest(connection, used_before=None, num_bytes=excess) if excess > 0 else 0


def used_bytes(connection: Connection) -> int:
    """SQLite: the pages in use. Otherwise about what all things take."""
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    sums = [
        connection.execute(select(func.coalesce(func.sum(table.c.size), 0))).scalar_one()
        for table in (responses, conversations, chats)
    ]
    return int(sum(sums))


def give_back_pages(connection: Connection) -> int:
    """Makes a SQLite file shorter by some of its free pages. Returns how many are left."""
    if connection.dialect.name != "sqlite":
        return 0
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
    # One at a time: the statement does one with each row, and rows without columns are not fetched.
    for _ in range(min(free, _PAGES_AT_ONCE)):
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())


def _delete_oldest(
    connection: Connection, *, used_before: int | None, num_bytes: int | None
) -> int:
    candidates = []
    for table, is_kept, size, delete in _KINDS:
        columns = (table.c.used, size.label("size"), table.c.id, table.c.owner)
        statement = select(*columns).where(~is_kept)
        if used_before is not None:
            statement = statement.where(table.c.used < used_before)
        rows = connection.execute(statement.order_by(table.c.used).limit(_AT_ONCE)).all()
        candidates += [(row.used, table.name, row, delete) for row in rows]
    num_deleted = 0
    for *_, row, delete in sorted(candidates, key=lambda one: one[:2])[:_AT_ONCE]:
        if num_bytes is not None and num_bytes <= 0:
            break
        num_deleted += delete(connection, row.id, owner=row.owner)
        num_bytes = None if num_bytes is None else num_bytes - row.size
    return num_deleted
