"""What a store does beside its operations: it forgets what is old, and keeps its file in order.

Theory of operation: commits only append to the log of SQLite. A thread of its own copies the log
into the file, where it waits for the disk; the writer goes on meanwhile. What was deleted is zeros
in the file then, but stands in older frames of the log, so after deletions the log is cut off,
which takes the writer's lock for the moment in which there is next to nothing left to copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from sqlalchemy import Table

from millstream.errors import StoreFailed
from millstream.store.checkpoints import Checkpoints
from millstream.store.failures import FAILURES, cause_of
from millstream.store.opening import Opened
from millstream.store.retention import (
    delete_largest_part,
    delete_unused,
    give_back_pages,
    touch,
)
from millstream.store.writer import Writer

log = logging.getLogger(__name__)

_TICK = 1.0
_PRUNE_SECONDS = 60.0
_DAY = 86_400
_LONGEST_UNNOTED = 3_600


class Limits(NamedTuple):
    """How long unused things are kept, and how many bytes of them."""

    days: float
    num_bytes: int


class Keeping:
    """A task of the event loop. `stop()` when done."""

    def __init__(self, opened: Opened, writer: Writer, limits: Limits) -> None:
        self._opened = opened
        self._writer = writer
        self._limits = limits
        self._checkpoints = Checkpoints(opened.database.address)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="millstream-keeping")
        self._used: dict[Table, set[str]] = {}
        self._has_deleted = False
        self._next_prune = time.monotonic() + _PRUNE_SECONDS
        self._failure = ""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def note_use(self, table: Table, keys: Sequence[str], *, last: int) -> None:
        """Remembers that they were used, if their rows say so of a time that is long ago."""
        unnoted = min(_LONGEST_UNNOTED, self._limits.days * _DAY / 24)
        if last <= time.time() - unnoted:
            self._used.setdefault(table, set()).update(keys)

    def note_deletion(self, is_deleted: bool) -> bool:  # noqa: FBT001
        """Has the log cut off soon, if something was deleted. Returns what it is given."""
        self._has_deleted |= is_deleted
        return is_deleted

    async def prune(self) -> int:
        """Deletes what is too old or too much, for good. Returns how many things."""
        await self._write_uses()
        before = int(time.time() - self._limits.days * _DAY)
        limit = self._limits.num_bytes
        total = 0
        while deleted := await self._writer.submit(lambda c: delete_unused(c, before=before)):
            total += deleted
        while deleted := await self._writer.submit(
            lambda c: delete_largest_part(c, limit_bytes=limit)
        ):
            total += deleted
        if total:
            left = -1
            while (now_left := await self._writer.submit(give_back_pages)) not in (0, left):
                left = now_left
            self._has_deleted = True
            await self.checkpoint()
        return total

    async def checkpoint(self) -> None:
        """Copies the log into the file; cuts it off if something was deleted."""
        must_cut, self._has_deleted = self._has_deleted, False
        run = asyncio.get_running_loop().run_in_executor
        is_cut = await run(self._thread, self._checkpoints.run, must_cut)
        self._has_deleted |= must_cut and not is_cut

    async def stop(self) -> None:
        """Ends the task; idempotent."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.to_thread(self._thread.shutdown)
        self._checkpoints.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            try:
                await self._tick()
                self._failure = ""
            except StoreFailed:
                pass  # the writer has logged it
            except FAILURES as error:
                if self._failure != cause_of(error):
                    self._failure = cause_of(error)
                    log.warning("the database of conversations: %s", self._failure)
            except Exception:
                log.exception("keeping the database of conversations in order failed")

    async def _write_uses(self) -> None:
        used, self._used = self._used, {}
        now = int(time.time())
        for table, keys in used.items():
            await self._writer.submit(partial(touch, table=table, keys=sorted(keys), now=now))

    async def _tick(self) -> None:
        await self._write_uses()
        if time.monotonic() >= self._next_prune:
            self._next_prune = time.monotonic() + _PRUNE_SECONDS
            await self.prune()
        await self.checkpoint()
        run = asyncio.get_running_loop().run_in_executor
        await run(self._thread, self._opened.lease.keep)
