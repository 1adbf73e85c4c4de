"""What all methods of the store work with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

from millstream.errors import StoreFailed
from millstream.store.address import StoreAddress
from millstream.store.keeping import Keeping, Limits
from millstream.store.opening import Opened, open_database
from millstream.store.reader import Reader
from millstream.store.retrying import until_done
from millstream.store.writer import Writer


class Connected:
    """The open database, its writer, its readers, and what keeps it in order."""

    def __init__(self, opened: Opened, limits: Limits) -> None:
        """In the event loop, by `open()`."""
        self.description = str(opened.database.address)
        loop, reading = asyncio.get_running_loop(), opened.database.reading
        self._opened = opened
        self._writer = Writer(opened.database.writing, loop, is_paced=reading is not None)
        self._reader = Reader(reading, self._writer)
        self._later: set[asyncio.Task[None]] = set()
        self._keeping = Keeping(opened, self._writer, limits)

    @classmethod
    async def open(
        cls,
        address: StoreAddress,
        *,
        days: float = 30.0,
        num_bytes: int = 2**30,
        busy_seconds: float = 5.0,
    ) -> Self:
        """Opens it, and brings its tables to this version. Raises StartupError with a sentence.

        days, num_bytes: how long what is unused is kept, and how much
        busy_seconds: how long an operation waits for another program that holds a SQLite file
        """
        opened = await asyncio.to_thread(open_database, address, busy_seconds=busy_seconds)
        return cls(opened, Limits(days, num_bytes))

    @property
    def is_failing(self) -> bool:
        """Whether what was tried last could not be written. Something is tried every minute."""
        return self._writer.is_failing

    async def close(self) -> None:
        """Does what is queued, and gives everything back; idempotent."""
        for task in self._later:
            task.cancel()
        await self._keeping.stop()
        await asyncio.to_thread(self._writer.stop)
        await asyncio.to_thread(self._reader.stop)
        await asyncio.to_thread(self._opened.close)

    def _do_surely(self, operation: Callable[[], asyncio.Future[Any]]) -> None:
        """Queues it now, and again until it is done, or the store is closed."""
        queued = operation()

        async def wait() -> None:
            try:
                await queued
            except StoreFailed:
                await until_done(operation)

        task = asyncio.create_task(wait())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def prune(self) -> int:
        """Deletes what is too old or too much, for good, as happens every minute by itself.

        Returns how many responses and conversations.
        """
        return await self._keeping.prune()


def now() -> int:
    """In seconds since 1970."""
    return int(time.time())
