"""The store as an archive of one answer's events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from millstream.store.records import EventBatch
from millstream.store.store import Store


class StoredEvents:
    """Keeps and reads the events of one answer. An EventArchive."""

    def __init__(self, store: Store, answer_id: str) -> None:
        self._store = store
        self._answer_id = answer_id

    def write(self, batch: EventBatch) -> asyncio.Future[None]:
        return self._store.log(self._answer_id, batch)

    async def read(self, *, after: int, max_bytes: int) -> Sequence[EventBatch]:
        return await self._store.events(self._answer_id, after=after, limit_bytes=max_bytes)
