"""The log of one answer's events: every reader gets each event once, whenever it comes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from millstream.answering.event_log import EventLog, Readers, split_frames
from millstream.errors import MillstreamError
from millstream.store.records import EventBatch


class Shelf:
    """An archive whose writes end when they are let."""

    def __init__(self, *, is_quick: bool = False) -> None:
        self.batches: list[EventBatch] = []
        self.pending: list[tuple[EventBatch, asyncio.Future[None]]] = []
        self._is_quick = is_quick

    def write(self, batch: EventBatch) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending.append((batch, done))
        if self._is_quick:
            self.finish()
        return done

    def finish(self) -> None:
        pending, self.pending = self.pending, []
        for batch, done in pending:
            self.batches.append(batch)
            done.set_result(None)

    def fail(self, error: MillstreamError) -> None:
        pending, self.pending = self.pending, []
        for _, done in pending:
            done.set_exception(error)

    async def read(self, *, after: int, max_bytes: int) -> Sequence[EventBatch]:
        found, size = [], 0
        for batch in self.batches:
            if batch.last > after and size < max_bytes:
                found.append(batch)
                size += len(batch.frames)
        return found


def frame(number: int) -> bytes:
    return f"id: {number}\ndata: {number}\n\n".encode()


def frames(*numbers: int) -> list[bytes]:
    return [frame(number) for number in numbers]


async def collect(log: EventLog, *, after: int = -1) -> list[int]:
    got = b"".join([part async for part in log.read(after=after)])
    return [int(one.split(b"data: ")[1]) for one in split_frames(got)]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_single_reader_gets_everything_at_once_and_memory_is_freed() -> None:
    log = EventLog(None, readers=Readers.ONE)
    log.append(frames(0, 1))
    reader = log.read()
    assert await anext(reader) == b"".join(frames(0, 1))
    log.append(frames(2))
    assert await anext(reader) == frame(2)
    assert log._frames == []
    log.complete(frames(3))
    assert [part async for part in reader] == [frame(3)]


async def test_a_log_that_nobody_reads_keeps_nothing() -> None:
    log = EventLog(None, readers=Readers.NONE)
    for number in range(100):
        log.append(frames(number))
    assert log._frames == []
    assert len(log) == 100


async def test_what_can_be_read_again_is_shown_when_it_is_archived() -> None:
    shelf = Shelf()
    log = EventLog(shelf, readers=Readers.ANY)
    log.append(frames(0))
    reading = asyncio.ensure_future(anext(log.read()))
    log.append(frames(1, 2))  # waits for the write under way
    await settle()
    assert not reading.done()
    assert [batch.last for batch, _ in shelf.pending] == [0]
    shelf.finish()
    await settle()
    assert reading.result() == frame(0)
    assert [(batch.first, batch.last) for batch, _ in shelf.pending] == [(1, 2)]
    shelf.finish()
    await log.settle()
    log.complete(frames(3))
    assert await collect(log) == [0, 1, 2, 3]
    assert await collect(log, after=1) == [2, 3]
    assert await collect(log, after=3) == []


async def test_readers_come_and_go_and_each_gets_every_event_once() -> None:
    """Four events are kept in memory, so that most readers go to the archive in between."""
    chance = random.Random(5)
    shelf = Shelf()
    log = EventLog(shelf, readers=Readers.ANY, kept=4)
    total = 300

    async def come_and_go(seed: int) -> list[int]:
        mine, seen = random.Random(seed), [-1]
        while seen[-1] != total - 1:
            reader = log.read(after=seen[-1])
            async for part in reader:
                seen += [int(one.split(b"data: ")[1]) for one in split_frames(part)]
                for _ in range(mine.randrange(3)):
                    await asyncio.sleep(0)
                if mine.random() < 0.3:
                    break
            await reader.aclose()
        return seen[1:]

    readers = [asyncio.ensure_future(come_and_go(seed)) for seed in range(8)]
    number = 0
    while number < total - 1:
        count = min(chance.randrange(1, 6), total - 1 - number)
        log.append(frames(*range(number, number + count)))
        number += count
        if chance.random() < 0.5:
            shelf.finish()
        await asyncio.sleep(0)
    while shelf.pending:
        shelf.finish()
        await settle()
    await log.settle()
    shelf.batches.append(EventBatch(first=total - 1, last=total - 1, frames=frame(total - 1)))
    log.complete(frames(total - 1))
    for seen in await asyncio.gather(*readers):
        assert seen == list(range(total))
    assert len(log._frames) <= 5


async def test_a_slow_reader_holds_up_nobody() -> None:
    shelf = Shelf(is_quick=True)
    log = EventLog(shelf, readers=Readers.ANY, kept=2)
    slow = log.read()
    log.append(frames(0))
    await settle()
    assert await anext(slow) == frame(0)
    for number in range(1, 50):
        log.append(frames(number))
        await settle()
    log.complete()
    assert len(log._frames) <= 3
    assert await collect(log, after=47) == [48, 49]
    rest = b"".join([part async for part in slow])
    assert rest == b"".join(frames(*range(1, 50)))


async def test_what_an_archive_failed_to_keep_was_never_said() -> None:
    shelf = Shelf()
    log = EventLog(shelf, readers=Readers.ANY)
    log.append(frames(0, 1))
    shelf.finish()
    await settle()
    log.append(frames(2))
    log.append(frames(3))
    reading = asyncio.ensure_future(collect(log))
    shelf.fail(MillstreamError("disk full"))
    await settle()
    assert not reading.done()
    assert log.num_shown == 2
    with pytest.raises(MillstreamError, match="disk full"):
        log.append(frames(4))
    await log.settle()
    assert (len(log), log.num_shown) == (2, 2)
    log.complete([b"id: 2\ndata: -1\n\n"])
    assert await reading == [0, 1, -1]
    assert await collect(log, after=1) == [-1]


async def test_who_reads_alone_gets_what_the_archive_failed_to_keep() -> None:
    shelf = Shelf()
    log = EventLog(shelf, readers=Readers.ONE)
    log.append(frames(0, 1))
    log._write_lazily()
    shelf.fail(MillstreamError("disk full"))
    await settle()
    with pytest.raises(MillstreamError, match="disk full"):
        log.append(frames(2))
    await log.settle()
    assert len(log) == 3
    log.complete(frames(3))
    assert await collect(log) == [0, 1, 2, 3]


async def test_events_of_a_single_reader_reach_the_archive_a_little_later() -> None:
    shelf = Shelf(is_quick=True)
    log = EventLog(shelf, readers=Readers.ONE)
    log.append(frames(0, 1))
    log.append(frames(2))
    assert shelf.batches == []
    log._write_lazily()
    await settle()
    assert [(batch.first, batch.last) for batch in shelf.batches] == [(0, 2)]
    log.complete(frames(3))
    assert await collect(log) == [0, 1, 2, 3]
