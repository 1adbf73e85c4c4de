"""Rows of events: a batch each, compressed.

Compressing is for the thread that writes; the event loop does not wait for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, LargeBinary, bindparam, insert, select
from sqlalchemy.sql import func

from millstream.store.json_text import to_key
from millstream.store.records import EventBatch
from millstream.store.tables import events, is_running, responses

_LEVEL = 1
_ROWS_AT_ONCE = 32

# Only while the response runs: what comes after it was deleted, or finished by somebody else, would
# belong to nobody.
_INSERT = insert(events).from_select(
    ["response_id", "first", "last", "frames"],
    select(
        responses.c.id,
        bindparam("b_first", type_=BigInteger),
        bindparam("b_last", type_=BigInteger),
        bindparam("b_frames", type_=LargeBinary),
    ).where(responses.c.id == bindparam("b_id"), is_running),
)
_SELECT = (
    select(events.c.first, events.c.last, events.c.frames)
    .where(events.c.response_id == bindparam("b_id"), events.c.last > bindparam("b_after"))
    .order_by(events.c.first)
    .limit(_ROWS_AT_ONCE)
)
size_of_events = (
    select(func.coalesce(func.sum(func.length(events.c.frames)), 0))
    .where(events.c.response_id == bindparam("b_id"))
    .scalar_subquery()
)
"""The bytes that the events of the response `b_id` take."""
_DELETE = events.delete().where(
    events.c.response_id == bindparam("b_id"), events.c.first >= bindparam("b_first")
)
_LAST = select(func.max(events.c.last)).where(events.c.response_id == bindparam("b_id"))


@dataclass(frozen=True, slots=True)
class LoggedBatch:
    """A batch of a response's events."""

    response_id: str
    batch: EventBatch


def insert_events(connection: Connection, batches: Sequence[LoggedBatch]) -> None:
    """Writes those whose response still runs."""
    rows = [
        {
            "b_id": to_key(one.response_id),
            "b_first": one.batch.first,
            "b_last": one.batch.last,
            "b_frames": zlib.compress(one.batch.frames, _LEVEL),
        }
        for one in batches
    ]
    connection.execute(_INSERT, rows)


def read_events(
    connection: Connection, response_id: str, *, after: int, limit_bytes: int
) -> list[EventBatch]:
    """Batches with events beyond `after`, in order, until they are that long; one at least."""
    found: list[EventBatch] = []
    length = 0
    while length < limit_bytes:
        values = {"b_id": to_key(response_id), "b_after": found[-1].last if found else after}
        rows = connection.execute(_SELECT, values).all()
        for first, last, frames in rows:
            if length >= limit_bytes and found:
                break
            found.append(EventBatch(first=first, last=last, frames=zlib.decompress(frames)))
            length += len(found[-1].frames)
        if len(rows) < _ROWS_AT_ONCE:
            break
    return found


def count_events(connection: Connection, response_id: str) -> int:
    """How many events of a response there are."""
    last = connection.execute(_LAST, {"b_id": to_key(response_id)}).scalar_one()
    return 0 if last is None else last + 1


def delete_events(connection: Connection, response_key: str, *, first: int = 0) -> None:
    """Deletes the batches of a response that begin with this event or a later one."""
    connection.execute(_DELETE, {"b_id": response_key, "b_first": first})
