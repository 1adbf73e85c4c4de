"""Reading beside the writer, in threads with connections of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from millstream.errors import StoreFailed
from millstream.store.database import NUM_READERS
from millstream.store.failures import FAILURES, store_failure
from millstream.store.writer import Writer

T = TypeVar("T")


class Reader:
    """Runs what reads in one transaction each. Without an engine the writer does it."""

    def __init__(self, engine: Engine | None, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._is_stopped = False
        self._threads = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="millstream-read")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns or raises. Raises StoreFailed."""
        if self._is_stopped:
            raise StoreFailed("The store is closed.")
        if self._engine is None:
            return await self._writer.submit(work)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _read, self._engine, work)

    def stop(self) -> None:
        """Takes no more. Waits for those that read."""
        self._is_stopped = True
        self._threads.shutdown(cancel_futures=True)


def _read(engine: Engine, work: Callable[[Connection], T]) -> T:
    try:
        with engine.connect() as connection:
            return work(connection)
    except FAILURES as error:
        raise store_failure(error) from error
