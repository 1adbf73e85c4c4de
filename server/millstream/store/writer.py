"""The one thread that writes.

Theory of operation: operations are queued; the thread takes all that wait and runs them in one
transaction, each within a savepoint, so that one that fails undoes only itself. When the
transaction is committed, all their futures are resolved at once; when it fails, all of them fail.
Events of all answers go into one statement, kept back until the batch ends or an operation needs
those of its response. Under load commits come at an even pace: more are in each instead.

Rules: operations run in the order in which they were queued. An operation does nothing but use the
connection it is given. It may run although nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from millstream.errors import StoreFailed
from millstream.store.event_rows import LoggedBatch, insert_events
from millstream.store.failures import FAILURES, cause_of, store_failure

T = TypeVar("T")
log = logging.getLogger(__name__)

_PACE = 0.025
"""Seconds from one commit to the next under load."""


@dataclass(slots=True, kw_only=True)
class _Operation:
    """Work, or events to be logged. `outcome` is set by the thread, the future by the loop."""

    future: asyncio.Future[Any]
    work: Callable[[Connection], Any] | None = None
    events: LoggedBatch | None = None
    needs_events_of: str | None = None
    outcome: Any = None
    failure: BaseException | None = None

    def resolve(self) -> None:
        """In the event loop's thread."""
        if self.future.done():
            return
        if self.failure is None:
            self.future.set_result(self.outcome)
        else:
            self.future.set_exception(self.failure)


@dataclass(slots=True)
class _Batch:
    """What one transaction does."""

    connection: Connection
    kept_back: list[_Operation] = field(default_factory=list)

    def run(self, operations: Sequence[_Operation]) -> None:
        """Raises what makes the whole transaction void."""
        for operation in operations:
            if operation.events is not None:
                self.kept_back.append(operation)
                continue
            wanted = operation.needs_events_of
            if any(one.events and one.events.response_id == wanted for one in self.kept_back):
                self.write_events()
            self._attempt([operation], operation.work)
        self.write_events()

    def write_events(self) -> None:
        """In one statement; if that fails, each by itself."""
        kept_back, self.kept_back = self.kept_back, []
        batches = [one.events for one in kept_back if one.events is not None]
        if not batches or self._attempt(kept_back, partial(insert_events, batches=batches)):
            return
        for one, batch in zip(kept_back, batches, strict=True):
            one.failure = None
            self._attempt([one], partial(insert_events, batches=[batch]))

    def _attempt(
        self, operations: Sequence[_Operation], work: Callable[[Connection], Any] | None
    ) -> bool:
        assert work is not None
        execute = self.connection.exec_driver_sql  # SQLAlchemy's own savepoints cost more
        execute("SAVEPOINT attempt")
        try:
            outcome = work(self.connection)
        except Exception as error:
            # Raises in its turn if the database has undone more than this.
            execute("ROLLBACK TO SAVEPOINT attempt")
            execute("RELEASE SAVEPOINT attempt")
            for operation in operations:
                operation.failure = error
            return False
        execute("RELEASE SAVEPOINT attempt")
        for operation in operations:
            operation.outcome = outcome
        return True


class Writer:
    """Runs operations for one event loop. `stop()` when done."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, *, is_paced: bool) -> None:
        self._engine = engine
        self._loop = loop
        self._pace = _PACE if is_paced else 0.0
        self._waiting: list[_Operation] = []
        self._changed = threading.Condition()
        self._is_stopping = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="millstream-store", daemon=True)
        self._thread.start()

    @property
    def is_failing(self) -> bool:
        """Whether what was tried last could not be written."""
        return self._is_failing

    def submit(
        self, work: Callable[[Connection], T], *, needs_events_of: str | None = None
    ) -> asyncio.Future[T]:
        """The future is done after the commit. It raises what `work` does, or StoreFailed.

        needs_events_of: a response whose events must have been written before.
        """
        return self._queue(
            _Operation(
                future=self._loop.create_future(), work=work, needs_events_of=needs_events_of
            )
        )

    def log(self, events: LoggedBatch) -> asyncio.Future[None]:
        """Queues events likewise."""
        return self._queue(_Operation(future=self._loop.create_future(), events=events))

    def stop(self) -> None:
        """Does what is queued, and ends the thread; from another thread than the loop's."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _queue(self, operation: _Operation) -> asyncio.Future[Any]:
        # Whoever does not wait for it has nothing to do about its failure, which is logged here.
        operation.future.add_done_callback(lambda done: done.cancelled() or done.exception())
        with self._changed:
            if self._is_stopping:
                operation.failure = StoreFailed("The store is closed.")
                operation.resolve()
            else:
                self._waiting.append(operation)
                self._changed.notify()
        return operation.future

    def _run(self) -> None:
        last_commit = 0.0
        while operations := self._take(last_commit + self._pace):
            self._do(operations)
            last_commit = time.monotonic()
            self._resolve(operations)

    def _take(self, not_before: float) -> list[_Operation]:
        """All that wait, once something does; none when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopping)
            while not self._is_stopping and (rest := not_before - time.monotonic()) > 0:
                self._changed.wait(rest)
            taken, self._waiting = self._waiting, []
            return taken

    def _do(self, operations: Sequence[_Operation]) -> None:
        try:
            with self._engine.begin() as connection:
                _Batch(connection).run(operations)
        except Exception as error:
            for operation in operations:
                operation.failure = error
        failed = [one.failure for one in operations if isinstance(one.failure, FAILURES)]
        self._report(failed[0] if failed else None)
        for operation in operations:
            if isinstance(operation.failure, FAILURES):
                operation.failure = store_failure(operation.failure)

    def _report(self, failure: BaseException | None) -> None:
        """Tells the operator when it begins to fail and when it works again, not each time."""
        if failure is not None and not self._is_failing:
            log.error("what is to be stored cannot be written: %s", cause_of(failure))
        elif failure is None and self._is_failing:
            log.info("what is to be stored can be written again")
        self._is_failing = failure is not None

    def _resolve(self, operations: Sequence[_Operation]) -> None:
        # A loop that was closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve_all, operations)


def _resolve_all(operations: Sequence[_Operation]) -> None:
    for operation in operations:
        operation.resolve()
