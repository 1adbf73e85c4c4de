"""The writer: what waits shares a transaction, events a statement, and commits have a pace."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event

from millstream.errors import StoreFailed
from millstream.store.address import StoreAddress
from millstream.store.database import Database, connect
from millstream.store.event_rows import LoggedBatch, read_events
from millstream.store.migrating import migrate
from millstream.store.response_rows import insert_response
from millstream.store.writer import Writer
from tests.store.things import batch, response


@pytest.fixture
def unpaced() -> None:
    """Commits have their pace here, which some of these tests are about."""


@pytest.fixture
def database(address: StoreAddress) -> Iterator[Database]:
    database = connect(address, busy_seconds=1)
    migrate(database.writing)
    yield database
    database.dispose()


async def begin(writer: Writer, name: str) -> None:
    await writer.submit(
        lambda c: insert_response(c, response(name), [], server="s", now=1),
    )


async def test_events_of_all_answers_are_one_statement(database: Database) -> None:
    inserts: list[bool] = []

    @event.listens_for(database.writing, "before_cursor_execute")
    def note(*arguments: Any) -> None:
        statement, is_many = arguments[2], arguments[5]
        if statement.startswith("INSERT INTO events"):
            inserts.append(is_many)

    writer = Writer(database.writing, asyncio.get_running_loop(), is_paced=False)
    names = [f"r{number}" for number in range(10)]
    started, held = threading.Event(), threading.Event()
    await asyncio.gather(*(begin(writer, name) for name in names))
    blocked = writer.submit(lambda _: started.set() or held.wait(10))
    await asyncio.to_thread(started.wait)  # what is queued from here on is one batch
    logged = [
        writer.log(LoggedBatch(name, batch(first, first))) for first in range(5) for name in names
    ]
    held.set()
    await asyncio.gather(blocked, *logged)
    await asyncio.to_thread(writer.stop)
    assert inserts == [True]
    with database.writing.connect() as connection:
        for name in names:
            found = read_events(connection, name, after=-1, limit_bytes=10**6)
            assert found == [batch(first, first) for first in range(5)]


async def test_commits_come_at_once_and_then_at_a_pace(database: Database) -> None:
    commits: list[float] = []

    @event.listens_for(database.writing, "commit")
    def note(_: Connection) -> None:
        commits.append(time.monotonic())

    writer = Writer(database.writing, asyncio.get_running_loop(), is_paced=True)
    for number in range(8):
        await begin(writer, f"r{number}")
    started = time.monotonic()
    await asyncio.to_thread(writer.stop)
    assert len(commits) == 8
    assert all(later - earlier > 0.02 for earlier, later in itertools.pairwise(commits))
    assert time.monotonic() - started < 1


async def test_nothing_is_acknowledged_before_it_is_committed(database: Database) -> None:
    commits = 0

    @event.listens_for(database.writing, "commit")
    def note(_: Connection) -> None:
        nonlocal commits
        assert not begun.done()
        commits += 1

    writer = Writer(database.writing, asyncio.get_running_loop(), is_paced=True)
    begun = asyncio.ensure_future(begin(writer, "r1"))
    await begun
    assert commits == 1
    await asyncio.to_thread(writer.stop)


async def test_a_cancelled_wait_ends_only_the_wait(database: Database) -> None:
    writer = Writer(database.writing, asyncio.get_running_loop(), is_paced=True)
    begun = asyncio.ensure_future(begin(writer, "r1"))
    other = asyncio.ensure_future(begin(writer, "r2"))
    asyncio.get_running_loop().call_soon(begun.cancel)
    await other
    assert begun.cancelled()
    with pytest.raises(StoreFailed):  # it is there already
        await begin(writer, "r1")
    await asyncio.to_thread(writer.stop)
