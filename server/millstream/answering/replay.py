"""Events that were stored, read again: the answer is complete, or another server makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from millstream.answering.event_log import frames_from
from millstream.store.records import RUNNING
from millstream.store.store import Store

_POLL_SECONDS = 0.5
_READ_BYTES = 256 * 1024


async def stored_events(
    store: Store, answer_id: str, *, owner: str, after: int
) -> AsyncGenerator[bytes, None]:
    """The events after this number, to the last. Waits for more while the answer is being made.

    Raises StoreFailed.
    """
    position = after + 1
    while True:
        # Asked before its events are read: what ends in between has its last ones there.
        answer = await store.response(answer_id, owner=owner)
        is_running = answer is not None and answer.status in RUNNING
        batches = await store.events(answer_id, after=position - 1, limit_bytes=_READ_BYTES)
        for batch in batches:
            yield frames_from(batch, position)
            position = batch.last + 1
        if batches:
            continue
        if not is_running:
            return
        await asyncio.sleep(_POLL_SECONDS)
