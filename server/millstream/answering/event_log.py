"""The events of one answer: written by its run, read by any number of readers.

Rules:
1. Events are numbered from 0 without a gap. A reader gets every event after the one that it names,
   once and in order, whenever it comes and however often it comes back.
2. What may be read again after a crash is shown to nobody before it is in the archive: no reader
   has seen more than is kept. Where the archive fails, what it does not have was never said; the
   one event that is shown without it is the last, which says so.
3. Nobody waits for a reader. What is too old for memory comes from the archive, and where there is
   none the log has one reader, who takes events with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from typing import Protocol

from millstream.errors import MillstreamError
from millstream.store.records import EventBatch

_KEPT = 2048
"""Events that stay in memory for readers who are a little behind."""
_LAZY_SECONDS = 2.0
"""How often events are archived that nobody will read again unless the server dies."""
_LAZY_GRID = 0.125
"""Answers wait for a common moment, so that one commit takes the events of many."""
_READ_BYTES = 256 * 1024


class EventArchive(Protocol):
    """A place where the events of one answer are kept."""

    def write(self, batch: EventBatch) -> asyncio.Future[None]:
        """Done when the batch is safe. Raises MillstreamError into the future."""
        ...

    async def read(self, *, after: int, max_bytes: int) -> Sequence[EventBatch]:
        """Batches with events after this one, in order; none if there are no more."""
        ...


class Readers(Enum):
    """Who reads a log: nobody, since the answer is wanted whole; one reader, from the first event
    on; or any number, who come and go and come back after a crash (rule 2)."""

    NONE = "none"
    ONE = "one"
    ANY = "any"


class EventLog:
    """The log. For one event loop.

    archive: where events go, if they are kept; at once for any readers, a little later otherwise.
    """

    def __init__(
        self, archive: EventArchive | None, *, readers: Readers, kept: int = _KEPT
    ) -> None:
        is_replayed = readers is Readers.ANY
        assert archive is not None or not is_replayed, "what is replayed is archived"
        self._archive = archive
        self._is_replayed = is_replayed
        self._is_unread = readers is Readers.NONE
        self._kept = kept
        self._frames: list[bytes] = []  # from number self._base on
        self._base = 0
        self._num_archived = 0
        self._writing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._readers: list[asyncio.Future[None]] = []
        self._failure: MillstreamError | None = None
        self._is_complete = False

    def __len__(self) -> int:
        """Events so far."""
        return self._base + len(self._frames)

    @property
    def failure(self) -> MillstreamError | None:
        """Why the archive takes no more events."""
        return self._failure

    @property
    def num_shown(self) -> int:
        """Events that readers may have."""
        return self._num_archived if self._is_replayed else len(self)

    @property
    def is_complete(self) -> bool:
        """Whether the last event is there."""
        return self._is_complete

    def append(self, frames: Sequence[bytes]) -> None:
        """Adds events. Raises what the archive has failed with."""
        self._frames += frames
        if self._failure is not None:
            raise self._failure
        if self._is_replayed:
            self._write()
            return
        if self._archive is not None and self._timer is None:
            loop = asyncio.get_running_loop()
            due = (loop.time() + _LAZY_SECONDS) // _LAZY_GRID * _LAZY_GRID
            self._timer = loop.call_at(due, self._write_lazily)
        if self._is_unread:
            self._drop(self._num_droppable)
        self._wake()

    def unarchived(self) -> EventBatch | None:
        """What the archive does not have; for whoever archives the rest together with the end."""
        first = self._num_archived
        frames = self._frames[first - self._base :]
        if not frames:
            return None
        return EventBatch(first=first, last=first + len(frames) - 1, frames=b"".join(frames))

    async def settle(self) -> None:
        """Waits until nothing is being archived, and lets nothing more be. Does not raise.

        Where the archive has failed, events that it should have shown first are forgotten.
        """
        self._stop_timer()
        while self._writing is not None:
            await asyncio.wait([self._writing])
        if self._is_replayed and self._failure is not None:
            del self._frames[self._num_archived - self._base :]

    def complete(self, last: Sequence[bytes] = ()) -> None:
        """Ends the log, with events that need no archiving by it."""
        self._stop_timer()
        self._frames += last
        self._num_archived = len(self)
        self._is_complete = True
        self._wake()

    async def read(self, *, after: int = -1) -> AsyncGenerator[bytes, None]:
        """The events after this number, as many at once as there are. Ends with the log."""
        position = after + 1
        while True:
            if position < self._base:
                async for after_them, frames in self._archived(position):
                    position = after_them
                    yield frames
                continue
            shown = self.num_shown
            if position < shown:
                frames = b"".join(self._frames[position - self._base : shown - self._base])
                position = shown
                if not self._is_replayed:
                    self._drop(min(position, self._num_droppable))
                yield frames
            elif self._is_complete:
                return
            else:
                await self._wait()

    async def _archived(self, position: int) -> AsyncGenerator[tuple[int, bytes], None]:
        """Events from here on that memory no more has, each time with the position after them."""
        assert self._archive is not None, "only what is archived is dropped before it is read"
        batches = await self._archive.read(after=position - 1, max_bytes=_READ_BYTES)
        assert batches, "what was archived is there until the log is gone"
        for batch in batches:
            yield batch.last + 1, frames_from(batch, position)
            position = batch.last + 1

    @property
    def _num_droppable(self) -> int:
        return len(self) if self._archive is None else self._num_archived

    def _drop(self, number: int) -> None:
        """Forgets the events before this one."""
        if number > self._base:
            del self._frames[: number - self._base]
            self._base = number

    def _write_lazily(self) -> None:
        self._timer = None
        self._write()

    def _write(self) -> None:
        """Archives what is new, unless it is being done; then it is done again after that."""
        if self._writing is not None or self._failure is not None:
            return
        batch = self.unarchived()
        if batch is None:
            return
        assert self._archive is not None
        self._writing = self._archive.write(batch)
        self._writing.add_done_callback(lambda done: self._on_written(done, batch.last))

    def _on_written(self, done: asyncio.Future[None], last: int) -> None:
        self._writing = None
        error = None if done.cancelled() else done.exception()
        if error is not None or done.cancelled():
            self._failure = (
                error
                if isinstance(error, MillstreamError)
                else MillstreamError("the events of this answer could not be kept")
            )
            self._wake()
            return
        self._num_archived = last + 1
        if self._is_replayed:
            self._drop(self._num_archived - self._kept)
            if not self._is_complete:
                self._write()
        self._wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait(self) -> None:
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.append(news)
        await news

    def _wake(self) -> None:
        readers, self._readers = self._readers, []
        for news in readers:
            if not news.done():
                news.set_result(None)


def frames_from(batch: EventBatch, number: int) -> bytes:
    """The frames of a batch from this number on."""
    if number <= batch.first:
        return batch.frames
    frames = split_frames(batch.frames)
    return b"".join(frames[number - batch.first :])


def split_frames(frames: bytes) -> list[bytes]:
    """Events that were joined, one by one."""
    return [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]
