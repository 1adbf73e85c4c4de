"""What is old or too much goes, the rest stays, and what is gone is in no file."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from millstream.store.address import StoreAddress
from millstream.store.records import StoredChat, StoredItem
from millstream.store.store import Store
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

DAY = 86_400


class Clock:
    """The time of day, which a test moves."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, *, days: float) -> None:
        self.seconds += days * DAY


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[Store]:
    address = StoreAddress.parse(str(tmp_path / "store.db"))
    assert address is not None
    store = await Store.open(address, num_bytes=300_000)
    yield store
    await store.close()


def bulk(name: str, num_bytes: int = 20_000) -> StoredItem:
    """An item that no compression makes small."""
    return StoredItem(id=name, data={"id": name, "text": secrets.token_hex(num_bytes // 2)})


async def left(store: Store, names: list[str]) -> list[str]:
    found = [await store.response(name, owner=OWNER) for name in names]
    return [one.id for one in found if one is not None]


async def test_what_was_not_used_for_long_is_deleted(store: Store, clock: Clock) -> None:
    await answered(store, "old")
    await store.create_conversation(conversation("c old"), items("1"))
    await store.begin(response("runs"), items("in"))
    await store.create_conversation(conversation("c held"), items("2"))
    await store.begin(response("runs, too", conversation_id="c held"), [])
    clock.move(days=29)
    await answered(store, "young")
    await store.create_conversation(conversation("c young"), items("3"))
    assert await store.prune() == 0
    clock.move(days=2)
    assert await store.prune() == 2
    names = ["old", "runs", "runs, too", "young"]
    assert await left(store, names) == ["runs", "runs, too", "young"]
    assert await store.conversation("c old", owner=OWNER) is None
    assert texts(await store.all_conversation_items("c held", owner=OWNER)) == ["2"]
    assert texts(await store.all_conversation_items("c young", owner=OWNER)) == ["3"]


async def test_what_is_read_or_followed_is_used(store: Store, clock: Clock) -> None:
    await answered(store, "r1")
    await answered(store, "r2", previous_id="r1")
    await answered(store, "read")
    await answered(store, "unused")
    await store.create_conversation(conversation("c1"), items("1"))
    clock.move(days=20)
    assert await store.context("r2", owner=OWNER) is not None
    assert await store.response("read", owner=OWNER) is not None
    assert await store.conversation("c1", owner=OWNER) is not None
    clock.move(days=20)
    assert await store.prune() == 1
    assert await left(store, ["r1", "r2", "read", "unused"]) == ["r1", "r2", "read"]
    assert texts(await store.context("r2", owner=OWNER)) == ["r1 in", "r1 out", "r2 in", "r2 out"]


async def test_a_chat_goes_as_a_whole_when_nothing_is_said_in_it_for_long(
    store: Store, clock: Clock
) -> None:
    for name in ("old", "busy", "spoken"):
        await store.create_chat(StoredChat(id=name, owner=OWNER, created=1, changed=1, settings={}))
        await answered(store, f"{name}_1", chat_id=name)
    await store.begin(response("busy_2", previous_id="busy_1", chat_id="busy"), [])
    clock.move(days=20)
    await answered(store, "spoken_2", previous_id="spoken_1", chat_id="spoken")
    clock.move(days=11)
    assert await store.prune() == 1
    assert await store.chat("old", owner=OWNER) is None
    assert await store.response("old_1", owner=OWNER) is None
    for name in ("busy_1", "busy_2", "spoken_1", "spoken_2"):
        assert await store.response(name, owner=OWNER) is not None


async def test_the_largest_part_counts_what_belongs_to_a_chat(
    address: StoreAddress, clock: Clock
) -> None:
    store = await Store.open(address, num_bytes=300_000)
    for number in range(8):
        name = f"chat_{number}"
        await store.create_chat(StoredChat(id=name, owner=OWNER, created=1, changed=1, settings={}))
        for turn in range(2):
            identifier = f"{name}_{turn}"
            await store.begin(response(identifier, chat_id=name), [bulk(identifier, 40_000)])
            await finished(store, identifier, outputs=[])
        clock.move(days=0.01)
    await store.prune()
    left = [n for n in range(8) if await store.chat(f"chat_{n}", owner=OWNER) is not None]
    assert left in ([5, 6, 7], [6, 7])
    assert await store.response(f"chat_{left[0] - 1}_1", owner=OWNER) is None
    await store.close()


async def test_many_old_things_are_deleted_at_once(store: Store, clock: Clock) -> None:
    begun = (store.begin(response(f"r{n}"), items(f"{n}")) for n in range(350))
    await asyncio.gather(*begun)
    await asyncio.gather(*(finished(store, f"r{n}") for n in range(350)))
    clock.move(days=31)
    assert await store.prune() == 350
    assert await store.prune() == 0


async def test_beyond_the_room_the_oldest_goes(address: StoreAddress, clock: Clock) -> None:
    store = await Store.open(address, num_bytes=300_000)
    names = [f"r{number}" for number in range(30)]
    for name in names:
        await store.begin(response(name), [bulk(name)])
        await finished(store, name)
        clock.move(days=0.1)
    await store.create_conversation(conversation("c1"), [bulk("i1")])
    await store.begin(response("runs"), [bulk("i2")])
    assert await store.prune() > 0
    found = await left(store, names)
    assert 7 <= len(found) <= 14
    assert found == names[-len(found) :]
    assert await store.conversation("c1", owner=OWNER) is not None
    assert await store.response("runs", owner=OWNER) is not None
    assert await store.prune() == 0
    await store.close()


async def test_a_pruned_file_is_short_again(file_store: Store, tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(100)]
    await asyncio.gather(
        *(file_store.begin(response(name), [bulk("i1"), bulk("i2")]) for name in names)
    )
    await asyncio.gather(*(finished(file_store, name) for name in names))
    await file_store.prune()
    assert (tmp_path / "store.db").stat().st_size < 400_000
    assert (tmp_path / "store.db-wal").stat().st_size == 0


def files_with(folder: Path, marks: list[bytes]) -> list[str]:
    return sorted(
        path.name
        for path in folder.glob("store.db*")
        if path.is_file() and any(mark in path.read_bytes() for mark in marks)
    )


async def write_marked(store: Store) -> list[bytes]:
    """What it wrote that can be told from everything else: its texts, in many sizes."""
    marks = [secrets.token_hex(16) for _ in range(40)]
    await store.create_conversation(conversation("c1"), items(marks[0], marks[1]))
    await store.begin(response("r1", conversation_id="c1"), items(marks[2]))
    await store.log("r1", batch(0, 3))
    await finished(store, "r1", outputs=items(marks[3]), resource={"instructions": marks[4]})
    long = [f"{mark}{'.' * 3_000 * place}" for place, mark in enumerate(marks[5:])]
    await store.begin(response("r2", resource={"instructions": marks[6]}), items(*long))
    await finished(store, "r2", outputs=items(marks[7]))
    return [mark.encode() for mark in marks]


async def test_the_bytes_of_what_is_pruned_are_gone(
    file_store: Store, tmp_path: Path, clock: Clock
) -> None:
    marks = await write_marked(file_store)
    assert files_with(tmp_path, marks) != []
    clock.move(days=31)
    assert await file_store.prune() > 0
    assert files_with(tmp_path, marks) == []


async def test_the_bytes_of_what_is_deleted_are_gone_soon(
    file_store: Store, tmp_path: Path
) -> None:
    marks = await write_marked(file_store)
    assert await file_store.delete_conversation("c1", owner=OWNER)
    assert await file_store.delete_response("r2", owner=OWNER)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(files_with, tmp_path, marks):
            pass
    assert await left(file_store, ["r1", "r2"]) == []


async def test_the_bytes_of_a_deleted_item_are_gone_soon(file_store: Store, tmp_path: Path) -> None:
    marks = await write_marked(file_store)
    gone, stays = marks[:1], marks[1:2]
    assert await file_store.delete_item("c1", f"item_{gone[0].decode()}", owner=OWNER)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(files_with, tmp_path, gone):
            pass
    assert files_with(tmp_path, stays) == ["store.db"]


async def test_the_log_is_copied_beside_the_writer(file_store: Store, tmp_path: Path) -> None:
    """Otherwise it would grow for ever: commits do not do it."""
    mark = secrets.token_hex(16)
    await file_store.begin(response("r1"), items(mark))
    assert files_with(tmp_path, [mark.encode()]) == ["store.db-wal"]
    async with asyncio.timeout(20):
        while "store.db" not in await asyncio.to_thread(files_with, tmp_path, [mark.encode()]):
            pass
