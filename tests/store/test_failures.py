"""Real failures of disks, files, other programs and servers: told, undone as a whole, and over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import ConversationLocked, StoreFailed
from millstream.store.address import StoreAddress
from millstream.store.records import StoredItem
from millstream.store.retrying import until_done
from millstream.store.store import Store
from tests.store.conftest import PostgreSQL
from tests.store.things import (
    OWNER,
    answered,
    batch,
    conversation,
    finished,
    items,
    response,
    texts,
)


async def opened(text: str | Path, busy_seconds: float = 0.2) -> Store:
    address = StoreAddress.parse(str(text))
    assert address is not None
    return await Store.open(address, busy_seconds=busy_seconds)


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await opened(tmp_path / "store.db")
    yield store
    await store.close()


@contextlib.contextmanager
def holding(path: Path) -> Iterator[None]:
    """Another program that writes to the database for as long as this lasts."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield
        child.communicate()


def bulk(name: str) -> StoredItem:
    return StoredItem(id=name, data={"id": name, "text": secrets.token_hex(50_000)})


async def test_a_database_that_another_holds(file_store: Store, tmp_path: Path) -> None:
    await answered(file_store, "r1")
    with holding(tmp_path / "store.db"):
        with pytest.raises(StoreFailed, match="Another program") as error:
            await file_store.begin(response("r2"), items("in"))
        assert (error.value.status, error.value.code) == (503, "store_unavailable")
        assert error.value.retry_after
        assert texts(await file_store.outputs("r1", owner=OWNER)) == ["r1 out"]
    assert await file_store.response("r2", owner=OWNER) is None
    await answered(file_store, "r2")


async def test_what_could_not_be_finished_can_be_later(file_store: Store, tmp_path: Path) -> None:
    await file_store.create_conversation(conversation("c1"), [])
    await file_store.begin(response("r1", conversation_id="c1"), items("in"))
    await file_store.log("r1", batch(0, 3))
    with holding(tmp_path / "store.db"):
        with pytest.raises(StoreFailed):
            await file_store.log("r1", batch(4, 5))
        with pytest.raises(StoreFailed):
            await finished(file_store, "r1")
    assert await file_store.abandoned() == []  # whoever failed to finish it does
    await until_done(lambda: finished(file_store, "r1", outputs=items("out")))
    await answered(file_store, "next", conversation_id="c1")
    held = texts(await file_store.all_conversation_items("c1", owner=OWNER))
    assert held == ["in", "out", "next in", "next out"]


async def test_an_operation_is_tried_until_the_store_does_it(
    file_store: Store, tmp_path: Path
) -> None:
    await file_store.begin(response("r1"), [])
    tries = 0
    released = asyncio.Event()

    async def finish() -> None:
        nonlocal tries
        tries += 1
        try:
            await finished(file_store, "r1")
        finally:
            released.set()

    with holding(tmp_path / "store.db"):
        doing = asyncio.create_task(until_done(finish))
        await released.wait()
    await doing
    assert tries > 1
    found = await file_store.response("r1", owner=OWNER)
    assert found is not None
    assert found.status == "completed"


async def test_events_that_are_there_unknown_to_their_writer_give_way(store: Store) -> None:
    """A connection that is lost while it commits leaves the writer in doubt."""
    await store.begin(response("r1"), [])
    await store.log("r1", batch(0, 3))
    await store.log("r1", batch(4, 9))
    await finished(store, "r1", last_events=batch(4, 4), keeps_events=True)
    found = await store.events("r1", after=-1, limit_bytes=1000)
    assert [(each.first, each.last) for each in found] == [(0, 3), (4, 4)]
    assert await store.num_events("r1") == 5
    assert await store.num_events("unknown") == 0


async def test_a_beginning_that_failed_has_left_nothing(file_store: Store, tmp_path: Path) -> None:
    """Not even when it did get there: its conversation would be locked by nobody."""
    await file_store.create_conversation(conversation("c1"), [])
    submit = file_store._writer.submit

    def in_doubt(*arguments: Any, **options: Any) -> asyncio.Future[Any]:
        file_store._writer.submit = submit  # type: ignore[method-assign]
        submit(*arguments, **options)
        doubtful: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        doubtful.set_exception(StoreFailed("the connection was lost"))
        return doubtful

    file_store._writer.submit = in_doubt  # type: ignore[method-assign]
    with pytest.raises(StoreFailed):
        await file_store.begin(response("r1", conversation_id="c1"), items("in"))
    await answered(file_store, "r2", conversation_id="c1")
    assert await file_store.response("r1", owner=OWNER) is None
    held = texts(await file_store.all_conversation_items("c1", owner=OWNER))
    assert held == ["r2 in", "r2 out"]


async def test_a_beginning_that_nobody_waits_for_is_undone(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("first"))
    begun = asyncio.create_task(store.begin(response("r1", conversation_id="c1"), items("in")))
    await asyncio.sleep(0)
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    await answered(store, "r2", conversation_id="c1")
    assert await store.response("r1", owner=OWNER) is None
    held = texts(await store.all_conversation_items("c1", owner=OWNER))
    assert held == ["first", "r2 in", "r2 out"]
    assert await store.abandoned() == []


async def test_a_short_hold_is_waited_for(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store.db", busy_seconds=30)
    with holding(tmp_path / "store.db"):
        begun = asyncio.create_task(store.begin(response("r1"), items("in")))
        assert await store.response("r1", owner=OWNER) is None
    await begun
    await finished(store, "r1")
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_disk_that_is_full(small_disk: Path) -> None:
    store = await opened(small_disk / "store.db")
    await answered(store, "before")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    given = [bulk(f"i{number}") for number in range(4)]
    with pytest.raises(StoreFailed, match="no room left"):
        await store.begin(response("r1"), given)
    assert await store.response("r1", owner=OWNER) is None
    assert texts(await store.outputs("before", owner=OWNER)) == ["before out"]
    filler.unlink()
    await store.begin(response("r1"), given)
    page = await store.inputs("r1", owner=OWNER, after=None, limit=9, is_descending=False)
    assert page.items == given
    await store.close()


async def test_what_does_not_fit_undoes_its_whole_batch(small_disk: Path) -> None:
    """SQLite then undoes more than a savepoint: nothing of it may be acknowledged."""
    store = await opened(small_disk / "store.db")
    begun = [store.begin(response(f"r{n}"), items("in")) for n in range(5)]
    begun.insert(2, store.begin(response("large"), [bulk(f"i{n}") for n in range(30)]))
    results = await asyncio.gather(*begun, return_exceptions=True)
    assert isinstance(results.pop(2), StoreFailed)
    for number, result in enumerate(results):
        is_there = await store.response(f"r{number}", owner=OWNER) is not None
        assert is_there == (result is None)
    assert await store.response("large", owner=OWNER) is None
    await answered(store, "after")
    await store.close()


async def test_an_operation_that_fails_hurts_no_other(store: Store) -> None:
    await store.create_conversation(conversation("c1"), [])
    await store.begin(response("r1", conversation_id="c1"), [])
    results = await asyncio.gather(
        store.begin(response("r2"), items("2")),
        store.begin(response("r1"), items("twice")),
        store.begin(response("r3", conversation_id="c1"), items("refused")),
        store.log("r1", batch(0, 3)),
        store.begin(response("r4"), items("4")),
        return_exceptions=True,
    )
    assert [type(one) for one in results] == [
        type(None),
        StoreFailed,
        ConversationLocked,
        type(None),
        type(None),
    ]
    assert texts(await store.context("r2", owner=OWNER)) == ["2"]
    assert texts(await store.context("r4", owner=OWNER)) == ["4"]
    assert texts(await store.context("r1", owner=OWNER)) == []
    assert await store.response("r3", owner=OWNER) is None


async def test_pages_that_are_damaged_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    names = [f"r{number}" for number in range(40)]
    await asyncio.gather(*(store.begin(response(name), [bulk(f"i{name}")]) for name in names))
    await store.close()
    store = await opened(path)  # nothing of it is in the log now
    with path.open("r+b") as file:
        file.seek(8_192)
        file.write(os.urandom(path.stat().st_size - 8_192))
    results = await asyncio.gather(
        *(store.context(name, owner=OWNER) for name in names),
        *(store.begin(response(f"new {name}"), items("in")) for name in names),
        return_exceptions=True,
    )
    failed = [one for one in results if isinstance(one, BaseException)]
    assert failed
    assert all(isinstance(one, StoreFailed) for one in failed)
    assert any("damaged" in str(one) for one in failed)
    await store.close()


async def test_a_database_server_that_goes_and_comes_back(postgresql: PostgreSQL) -> None:
    store = await opened(postgresql.new_database())
    await answered(store, "r1")
    await store.begin(response("r2"), items("in"))
    postgresql.stop()
    try:
        with pytest.raises(StoreFailed):
            await store.begin(response("r3"), [])
        with pytest.raises(StoreFailed):
            await store.log("r2", batch(0, 3))
        with pytest.raises(StoreFailed):
            await store.response("r1", owner=OWNER)
    finally:
        postgresql.start()
    await store.log("r2", batch(0, 3))
    await finished(store, "r2", outputs=items("out"))
    assert texts(await store.context("r2", owner=OWNER)) == ["in", "out"]
    assert await store.response("r3", owner=OWNER) is None
    await store.close()


async def test_a_lease_that_was_lost_is_taken_again(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    store, other = await opened(url), await opened(url)
    await store.begin(response("r1"), [])
    postgresql.stop()
    postgresql.start()
    async with asyncio.timeout(30):
        while await other.abandoned():
            pass
    await store.close()
    assert [one.id for one in await other.abandoned()] == ["r1"]
    await other.close()


async def test_a_store_that_was_closed(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store.db")
    begun = asyncio.gather(*(store.begin(response(f"r{n}"), []) for n in range(20)))
    await asyncio.gather(begun, store.close())
    with pytest.raises(StoreFailed):
        await store.begin(response("late"), [])
    with pytest.raises(StoreFailed):
        await store.log("r1", batch(0, 1))
    with pytest.raises(StoreFailed):
        await store.response("r1", owner=OWNER)
    await store.close()
    store = await opened(tmp_path / "store.db")
    for number in range(20):
        assert await store.response(f"r{number}", owner=OWNER) is not None
    await store.close()
