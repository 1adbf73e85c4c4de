"""The store as the server's event loop sees it. Every method is called in that loop.

Rules: what changes is done by the writer's thread, what reads in threads of its own; nothing waits
in the loop. Whatever fails below raises StoreFailed, and works again when the cause is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from secrets import token_bytes
from typing import Any, Literal

from sqlalchemy import Connection, select, text

from millstream.errors import StoreFailed
from millstream.store import event_rows, item_rows, response_rows
from millstream.store.chats import StoredChats
from millstream.store.connected import now
from millstream.store.conversation_rows import check_num_items, in_response
from millstream.store.event_rows import LoggedBatch
from millstream.store.failures import is_refusal
from millstream.store.json_text import to_key
from millstream.store.records import EventBatch, Page, StoredItem, StoredResponse
from millstream.store.response_endings import finish_response
from millstream.store.tables import responses, secrets

_INSERT_SECRET = text(
    "INSERT INTO secrets (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING"
)


class Store(StoredChats):
    """All that is stored. `open()` makes one; `close()` when done."""

    async def begin(
        self,
        response: StoredResponse,
        inputs: Sequence[StoredItem],
        *,
        items_before: int | None = None,
    ) -> None:
        """Writes a response that begins, with its inputs; takes its conversation's lock, or becomes
        its chat's leaf.

        items_before: what its conversation had when it was read. Raises ConversationLocked, also if
        it has others now, or NotFound for a conversation or a chat that is not its owner's.
        """
        server = self._opened.lease.name

        def insert(connection: Connection) -> None:
            response_rows.insert_response(connection, response, inputs, server=server, now=now())
            if items_before is not None and response.conversation_id is not None:
                check_num_items(connection, response.conversation_id, expected=items_before)

        try:
            await self._writer.submit(insert)
        except (asyncio.CancelledError, StoreFailed) as error:
            # It may be there all the same, with its conversation's lock; nobody would finish it.
            if not (isinstance(error, StoreFailed) and is_refusal(error)):
                delete = partial(
                    response_rows.delete_response, response_id=response.id, owner=response.owner
                )
                self._do_surely(lambda: self._writer.submit(delete))
            raise

    async def set_status(self, response_id: str, status: Literal["queued", "in_progress"]) -> None:
        """Changes that of a response that is not finished."""
        await self._writer.submit(lambda c: response_rows.update_status(c, response_id, status))

    def log(self, response_id: str, batch: EventBatch) -> asyncio.Future[None]:
        """Queues events of a response that is not finished. The future is done after the commit."""
        return self._writer.log(LoggedBatch(response_id, batch))

    async def finish(
        self,
        response_id: str,
        *,
        status: str,
        resource: dict[str, Any],
        outputs: Sequence[StoredItem],
        timing: Mapping[str, object] | None = None,
        last_events: EventBatch | None = None,
        keeps_events: bool,
    ) -> None:
        """Writes what a response has become, at once. A conversation gets its inputs and outputs
        at its end, and its lock back. Nothing happens to a response that is finished, or gone.

        last_events: what follows the events that were logged; others of these numbers are gone.
        """
        finished = self._writer.submit(
            lambda c: finish_response(
                c,
                response_id,
                status=status,
                resource=resource,
                outputs=outputs,
                timing=timing,
                last_events=last_events,
                keeps_events=keeps_events,
                now=now(),
            ),
            needs_events_of=response_id,
        )
        # It is done although nobody may wait for it any more, and may fail.
        await asyncio.shield(finished)

    async def response(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """The response, if it is the owner's."""
        found = await self._reader.read(
            lambda c: response_rows.read_response(c, response_id, owner=owner)
        )
        if found is None:
            return None
        self._keeping.note_use(responses, [to_key(response_id)], last=found[1])
        return found[0]

    async def inputs(
        self, response_id: str, *, owner: str, after: str | None, limit: int, is_descending: bool
    ) -> Page:
        """A page of its own inputs. Raises InvalidRequest if `after` is none of them."""
        return await self._reader.read(
            lambda c: item_rows.page_of_items(
                c,
                in_response(response_id, owner, "input"),
                after=after,
                limit=limit,
                is_descending=is_descending,
            )
        )

    async def outputs(self, response_id: str, *, owner: str) -> list[StoredItem]:
        """All its outputs."""
        return await self._reader.read(
            lambda c: item_rows.all_items(c, in_response(response_id, owner, "output"))
        )

    async def items(self, identifiers: Sequence[str], *, owner: str) -> list[StoredItem]:
        """Those of these items that the owner has, in any order."""
        return await self._reader.read(lambda c: item_rows.items_by_id(c, identifiers, owner=owner))

    async def context(self, response_id: str, *, owner: str) -> list[StoredItem] | None:
        """What a response that follows this one is told: all that came before it, and it.

        None if it, or one that it builds on, is unknown, somebody else's, or deleted.
        """
        found = await self._reader.read(
            lambda c: response_rows.read_context(c, response_id, owner=owner)
        )
        if found is None:
            return None
        told, keys, last = found
        self._keeping.note_use(responses, keys, last=last)
        return told

    async def events(self, response_id: str, *, after: int, limit_bytes: int) -> list[EventBatch]:
        """Batches with events beyond `after`, in order, one at least, until they are that long."""
        return await self._reader.read(
            lambda c: event_rows.read_events(c, response_id, after=after, limit_bytes=limit_bytes)
        )

    async def num_events(self, response_id: str) -> int:
        """How many there are."""
        return await self._reader.read(lambda c: event_rows.count_events(c, response_id))

    async def delete_response(self, response_id: str, *, owner: str) -> bool:
        """Deletes it with its items and events; items that are in a conversation stay there."""
        is_deleted = await self._writer.submit(
            lambda c: response_rows.delete_response(c, response_id, owner=owner)
        )
        return self._keeping.note_deletion(is_deleted)

    async def secret(self, name: str) -> bytes:
        """A secret of 32 bytes that all servers on this database share, made when it is new."""

        def read_or_make(connection: Connection) -> bytes:
            row = {"name": name, "value": token_bytes(32)}
            # Another server may make it at the same moment.
            connection.execute(_INSERT_SECRET, row)
            found = select(secrets.c.value).where(secrets.c.name == name)
            return bytes(connection.execute(found).scalar_one())

        return await self._writer.submit(read_or_make)

    async def abandoned(self) -> list[StoredResponse]:
        """Those that are not finished, and never will be, as their server is gone."""
        running = await self._reader.read(response_rows.read_running)
        return await asyncio.to_thread(self._opened.of_the_gone, running)
