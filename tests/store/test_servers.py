"""Several servers on one database, and what a dead one leaves behind."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from sqlalchemy import Engine, event

from millstream.store.address import StoreAddress
from millstream.store.database import connect
from millstream.store.leases import take_lease
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

# Begins two responses, one of them in a conversation, says so, and does nothing more.
_CHILD = """
import asyncio, sys
from millstream.store.address import StoreAddress
from millstream.store.store import Store
from tests.store.things import conversation, items, response, batch, answered

async def main():
    store = await Store.open(StoreAddress.parse(sys.argv[1]))
    await store.create_conversation(conversation("c1"), [])
    await store.begin(response("dead 1", conversation_id="c1"), items("in"))
    await store.set_status("dead 1", "in_progress")
    await store.log("dead 1", batch(0, 3))
    await store.begin(response("dead 2"), [])
    await answered(store, "done")
    print("begun", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def shared(address: StoreAddress) -> StoreAddress:
    if address.kind == "memory":
        pytest.skip("memory is for one server")
    return address


def text_of(address: StoreAddress) -> str:
    if address.url is None:
        return str(address.path)
    return address.url.render_as_string(hide_password=False)


async def abandoned(store: Store) -> list[str]:
    return sorted(one.id for one in await store.abandoned())


async def test_a_killed_server_s_responses_are_abandoned(shared: StoreAddress) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, text_of(shared), stdout=asyncio.subprocess.PIPE
    )
    store = await Store.open(shared)
    try:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"begun\n"
        await store.begin(response("mine"), [])
        assert await abandoned(store) == []
        child.kill()
        await child.wait()
        while not await abandoned(store):
            pass  # PostgreSQL learns of it from the closed socket
        assert await abandoned(store) == ["dead 1", "dead 2"]
        await finished(store, "dead 1", status="failed", last_events=batch(4, 4))
        assert await abandoned(store) == ["dead 2"]
        await answered(store, "next", conversation_id="c1")
        told = texts(await store.all_conversation_items("c1", owner=OWNER))
        assert told == ["in", "next in", "next out"]
        assert await store.events("dead 1", after=-1, limit_bytes=999) == [
            batch(0, 3),
            batch(4, 4),
        ]
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()
        await store.close()


async def test_a_closed_server_s_responses_are_abandoned(shared: StoreAddress) -> None:
    store, other = await Store.open(shared), await Store.open(shared)
    await other.begin(response("r1"), [])
    assert await abandoned(store) == []
    await other.close()
    assert await abandoned(store) == ["r1"]
    await store.close()


async def test_two_servers_share_everything(shared: StoreAddress) -> None:
    one, two = await Store.open(shared), await Store.open(shared)
    await one.create_conversation(conversation("c1"), items("first"))
    names = [(store, f"{label}{n}") for label, store in (("a", one), ("b", two)) for n in range(40)]
    await asyncio.gather(*(store.begin(response(name), items(name)) for store, name in names))
    await asyncio.gather(*(store.log(name, batch(0, 3)) for store, name in names))
    await asyncio.gather(*(finished(store, name) for store, name in names))
    for store, (_, name) in ((store, pair) for store in (one, two) for pair in names):
        assert texts(await store.context(name, owner=OWNER)) == [name]
        assert await store.events(name, after=-1, limit_bytes=99) == [batch(0, 3)]
    await one.begin(response("holds", conversation_id="c1"), [])
    with pytest.raises(Exception, match="another response"):
        await two.begin(response("waits", conversation_id="c1"), [])
    await finished(one, "holds")
    await answered(two, "goes on", conversation_id="c1")
    await asyncio.gather(one.close(), two.close())


def test_a_lease_that_is_given_back_leaves_no_connection(postgresql: PostgreSQL) -> None:
    """Also if somebody looks at that moment whether another one is free, or after it."""
    address = StoreAddress.parse(postgresql.new_database())
    assert address is not None
    made: list[Any] = []
    looks, may_go_on = threading.Event(), threading.Event()

    def on_checkout(connection: Any, record: Any, proxy: Any) -> None:
        made.append(connection)
        if threading.current_thread().name == "looker":
            looks.set()
            may_go_on.wait(30)

    event.listen(Engine, "checkout", on_checkout)
    try:
        lease = take_lease(connect(address, busy_seconds=1))
        looker = threading.Thread(target=lease.is_free, args=["1"], name="looker")
        looker.start()
        assert looks.wait(30)
        releaser = threading.Thread(target=lease.release)
        releaser.start()
        releaser.join(0.2)  # where nothing makes it wait, it is done by then
        may_go_on.set()
        looker.join()
        releaser.join()
        lease.keep()
        assert not lease.is_free("1")
    finally:
        event.remove(Engine, "checkout", on_checkout)
    assert len(made) == 2
    assert all(connection.closed for connection in made)


def test_a_lease_that_is_given_back_is_free_at_once(postgresql: PostgreSQL) -> None:
    """Not only when the database server has noticed that its connection is gone."""
    address = StoreAddress.parse(postgresql.new_database())
    assert address is not None
    looker = take_lease(connect(address, busy_seconds=1))
    for _ in range(100):
        lease = take_lease(connect(address, busy_seconds=1))
        assert not looker.is_free(lease.name)
        lease.release()
        assert looker.is_free(lease.name)
    looker.release()
