"""Rows of responses at their end: the last events, the outputs, what has become of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, select, update

from millstream.store.chat_rows import note_said
from millstream.store.conversation_rows import unlock, use
from millstream.store.event_rows import LoggedBatch, delete_events, insert_events, size_of_events
from millstream.store.item_rows import insert_items, move_inputs
from millstream.store.json_text import to_key, to_text
from millstream.store.records import EventBatch, StoredItem
from millstream.store.tables import is_running, responses

_SELECT_RUNNING = (
    select(responses.c.owner, responses.c.conversation_id, responses.c.size, responses.c.chat_id)
    .where(responses.c.id == bindparam("b_id"), is_running)
    .with_for_update()
)
_FINISH = (
    update(responses)
    .where(responses.c.id == bindparam("b_id"))
    .values(
        status=bindparam("b_status"),
        resource=bindparam("b_resource"),
        timing=bindparam("b_timing"),
        used=bindparam("b_used"),
        size=bindparam("b_size", type_=BigInteger) + size_of_events,
    )
)


def finish_response(
    connection: Connection,
    response_id: str,
    *,
    status: str,
    resource: dict[str, Any],
    outputs: Sequence[StoredItem],
    timing: Mapping[str, object] | None,
    last_events: EventBatch | None,
    keeps_events: bool,
    now: int,
) -> None:
    """Writes what it has become. It does nothing if the response is finished, or deleted."""
    key = to_key(response_id)
    found = connection.execute(_SELECT_RUNNING, {"b_id": key}).first()
    if found is None:
        return
    if last_events is not None and keeps_events:
        # Whoever ends it may not know that some of its events did get here.
        delete_events(connection, key, first=last_events.first)
        insert_events(connection, [LoggedBatch(response_id, last_events)])
    elif not keeps_events:
        delete_events(connection, key)
    written = _write_outputs(connection, key, found, outputs, now=now)
    text = to_text(resource)
    size = found.size + written + len(text)
    row = {"b_id": key, "b_status": status, "b_resource": text, "b_used": now, "b_size": size}
    row["b_timing"] = None if timing is None else to_text(timing)
    connection.execute(_FINISH, row)


def _write_outputs(
    connection: Connection, key: str, found: Any, outputs: Sequence[StoredItem], *, now: int
) -> int:
    """Writes them, for its conversation and its chat as well, if it has one. Returns the bytes that
    they take of the response's own."""
    conversation = found.conversation_id
    if conversation is not None:
        move_inputs(connection, key, conversation)
    written = insert_items(
        connection,
        outputs,
        owner=found.owner,
        response_id=key,
        direction="output",
        conversation_id=conversation,
    )
    if conversation is not None:
        unlock(connection, conversation, holder=key)
        use(connection, conversation, more_bytes=written, now=now)
        written = 0
    if found.chat_id is not None:
        note_said(connection, key, outputs)
    return written
