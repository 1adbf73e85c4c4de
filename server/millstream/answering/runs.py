"""Runs: answers that are being made, each in a task of its own.

Rules: a run ends by itself, or because it is cancelled; whoever reads its events has no say in it
unless it was begun for that reader alone. It is known until the store has its ending. All of them
end before the server does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

from millstream.answering.event_log import EventLog
from millstream.store.retrying import until_done

log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
"""What the end of a run takes at most: its last words to the store."""


class Run:
    """One answer while it is made.

    owner: who may read and cancel it. snapshot: the answer so far, as its API shows it. timing: how
    long what of it has taken so far. position: at which place it waits, where readers are told.
    is_replayed: whether others than the one who asked may read its events, and come back.
    """

    def __init__(
        self,
        identifier: str,
        events: EventLog,
        *,
        owner: str,
        is_replayed: bool,
        snapshot: Callable[[], dict[str, Any]],
        timing: Callable[[], Mapping[str, object] | None] = lambda: None,
        position: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.id = identifier
        self.owner = owner
        self.events = events
        self.is_replayed = is_replayed
        self.snapshot = snapshot
        self.timing = timing
        self.position = position
        self._task: asyncio.Task[Any] | None = None
        self.owed: Callable[[], Awaitable[None]] | None = None

    def owe(self, ending: Callable[[], Awaitable[None]]) -> None:
        """Notes what the store has still to be told when the work is over, as it failed to take it.

        Until then the run is what there is to be known of the answer.
        """
        self.owed = ending

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begins to make the answer. `work` ends the log, however it ends itself."""
        self._task = asyncio.create_task(work)
        return self._task

    async def ended(self) -> Any:
        """What the work returns or raises, once it has ended. Cancelled, lets it go on."""
        assert self._task is not None, "started first"
        return await asyncio.shield(self._task)

    async def settled(self) -> None:
        """Waits until the work has ended, however."""
        assert self._task is not None, "started first"
        await asyncio.wait([self._task])

    def cancel(self) -> None:
        """Lets the work end soon, unless it has ended."""
        if self._task is not None:
            self._task.cancel()


class Runs:
    """All runs of one server. For one event loop."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def start(self, run: Run, work: Coroutine[Any, Any, Any]) -> None:
        """Starts a run, which is known here until it has ended."""
        self._runs[run.id] = run
        self._watch(run, run.start(work))

    def find(self, identifier: str, *, owner: str) -> Run | None:
        """A run that has not ended; None if there is no such, or it is somebody else's."""
        run = self._runs.get(identifier)
        return run if run is not None and run.owner == owner else None

    async def stop(self, *, grace: float = _GRACE_SECONDS) -> None:
        """Waits until all have ended; cancels those that have not after so many seconds."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace)
        self._is_stopping = True
        while self._tasks:
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _watch(self, run: Run, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._on_done(run, task))

    def _on_done(self, run: Run, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("answer %s failed", run.id, exc_info=error)
        if not run.events.is_complete:
            run.events.complete()  # nobody waits for what never comes
        owed, run.owed = run.owed, None
        if owed is not None and not self._is_stopping:
            self._watch(run, asyncio.create_task(until_done(owed)))
        else:
            del self._runs[run.id]
