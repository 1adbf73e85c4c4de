"""Tells the reader of a stream at which place its request waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

_LOOK_SECONDS = 0.2
"""How often the place is looked up; who waits less is told nothing."""


async def with_positions(
    events: AsyncGenerator[bytes, None], position: Callable[[], int | None]
) -> AsyncGenerator[bytes, None]:
    """The events, and while there are none and the request waits, its place when it has changed.

    position: the place, or None for a request that no longer waits. What is told has no id: it is
    for this reader, and is not kept.
    """
    told: int | None = None
    try:
        async for first in _while_waiting(events, position):
            if isinstance(first, bytes):
                yield first
            elif first != told:
                told = first
                yield _event(first)
        async for event in events:
            yield event
    finally:
        await events.aclose()


async def _while_waiting(
    events: AsyncGenerator[bytes, None], position: Callable[[], int | None]
) -> AsyncGenerator[bytes | int, None]:
    """Events and places, until the request no longer waits."""
    reading: asyncio.Future[bytes] | None = None
    try:
        while position() is not None:
            if reading is None:
                reading = asyncio.ensure_future(anext(events))
            await asyncio.wait([reading], timeout=_LOOK_SECONDS)
            if reading.done():
                done, reading = reading, None
                try:
                    yield done.result()
                except StopAsyncIteration:
                    return
            elif (place := position()) is not None:
                yield place
        if reading is not None:
            waited, reading = reading, None
            with contextlib.suppress(StopAsyncIteration):
                yield await waited
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _event(place: int) -> bytes:
    return b'event: queue.position\ndata: {"type":"queue.position","position":%d}\n\n' % place
