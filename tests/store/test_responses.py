"""Responses: what is begun, logged and finished is read again, by its owner only."""

from __future__ import annotations

import asyncio

import pytest

from millstream.errors import InvalidRequest
from millstream.store.records import StoredItem
from millstream.store.store import Store
from tests.store.things import OWNER, STRANGER, answered, batch, finished, items, response, texts


async def test_a_response_is_read_as_it_was_begun(store: Store) -> None:
    begun = response("r1", is_resumable=False, kind="chat", resource={"a": [1, None, "é\0\ud800"]})
    await store.begin(begun, items("one"))
    assert await store.response("r1", owner=OWNER) == begun


async def test_a_finished_response_is_what_it_has_become(store: Store) -> None:
    await store.begin(response("r1"), items("in"))
    await store.set_status("r1", "in_progress")
    found = await store.response("r1", owner=OWNER)
    assert found is not None
    assert found.status == "in_progress"
    assert found.timing is None
    timing = {"queue_seconds": None, "total_seconds": 1.5}
    outputs = items("out 1", "out 2")
    await finished(store, "r1", status="incomplete", outputs=outputs, timing=timing)
    found = await store.response("r1", owner=OWNER)
    assert found is not None
    assert (found.status, found.resource) == ("incomplete", {"id": "r1", "is_done": True})
    assert found.timing == timing
    assert texts(await store.outputs("r1", owner=OWNER)) == ["out 1", "out 2"]


async def test_a_finished_response_stays_as_it_is(store: Store) -> None:
    await answered(store, "r1")
    await finished(store, "r1", status="failed", outputs=items("again"))
    await store.set_status("r1", "in_progress")
    found = await store.response("r1", owner=OWNER)
    assert found is not None
    assert found.status == "completed"
    assert texts(await store.outputs("r1", owner=OWNER)) == ["r1 out"]


async def test_a_stranger_finds_and_deletes_nothing(store: Store) -> None:
    await answered(store, "r1")
    assert await store.response("r1", owner=STRANGER) is None
    assert await store.outputs("r1", owner=STRANGER) == []
    assert await store.context("r1", owner=STRANGER) is None
    page = await store.inputs("r1", owner=STRANGER, after=None, limit=9, is_descending=False)
    assert page.items == []
    assert not await store.delete_response("r1", owner=STRANGER)
    assert await store.response("r1", owner=OWNER) is not None


@pytest.mark.parametrize("identifier", ["", "nowhere", "a\0b", "\ud800", "é", "x" * 10_000])
async def test_an_id_that_cannot_be_is_unknown(store: Store, identifier: str) -> None:
    assert await store.response(identifier, owner=OWNER) is None
    assert await store.context(identifier, owner=OWNER) is None
    assert await store.events(identifier, after=-1, limit_bytes=1) == []
    assert not await store.delete_response(identifier, owner=OWNER)


async def test_inputs_come_in_pages(store: Store) -> None:
    await store.begin(response("r1"), items("1", "2", "3", "4"))
    await store.begin(response("r2"), items("of another"))
    page = await store.inputs("r1", owner=OWNER, after=None, limit=3, is_descending=False)
    assert (texts(page.items), page.has_more) == (["1", "2", "3"], True)
    page = await store.inputs("r1", owner=OWNER, after="item_3", limit=3, is_descending=False)
    assert (texts(page.items), page.has_more) == (["4"], False)
    page = await store.inputs("r1", owner=OWNER, after="item_4", limit=3, is_descending=True)
    assert (texts(page.items), page.has_more) == (["3", "2", "1"], False)
    with pytest.raises(InvalidRequest) as error:
        await store.inputs("r1", owner=OWNER, after="item_x", limit=3, is_descending=True)
    assert (error.value.status, error.value.param) == (400, "after")


async def test_an_item_may_have_any_id(store: Store) -> None:
    odd = [StoredItem(id=one, data={"id": one}) for one in ("a\0", "\ud800", "ü" * 5_000)]
    await store.begin(response("r1"), odd)
    page = await store.inputs("r1", owner=OWNER, after="a\0", limit=9, is_descending=False)
    assert page.items == odd[1:]


async def test_items_are_found_by_their_ids(store: Store) -> None:
    await store.begin(response("r1"), items("1", "2", "3"))
    await store.begin(response("r2", owner=STRANGER), items("4"))
    await store.begin(response("r3"), [StoredItem(id="item_1", data={"text": "again"})])
    names = ["item_2", "item_1", "item_4", "item_2", "\0", *map(str, range(40_000))]
    found = texts(await store.items(names, owner=OWNER))
    assert sorted(found or []) == ["2", "again"]


async def test_a_context_is_the_whole_chain(store: Store) -> None:
    await answered(store, "r1")
    await answered(store, "r2", previous_id="r1")
    await answered(store, "fork", previous_id="r1")
    await answered(store, "r3", previous_id="r2")
    told = ["r1 in", "r1 out", "r2 in", "r2 out", "r3 in", "r3 out"]
    assert texts(await store.context("r3", owner=OWNER)) == told
    assert texts(await store.context("fork", owner=OWNER)) == [*told[:2], "fork in", "fork out"]


async def test_a_long_chain_is_read(store: Store) -> None:
    begun = [response("r0")] + [response(f"r{n}", previous_id=f"r{n - 1}") for n in range(1, 300)]
    await asyncio.gather(*(store.begin(one, items(one.id[1:])) for one in begun))
    assert texts(await store.context("r299", owner=OWNER)) == [str(n) for n in range(300)]


async def test_a_chain_that_was_cut_is_no_context(store: Store) -> None:
    for number in (1, 2, 3):
        await answered(store, f"r{number}", previous_id=f"r{number - 1}" if number > 1 else None)
    await answered(store, "of another", owner=STRANGER, previous_id="r1")
    assert await store.context("of another", owner=STRANGER) is None
    assert await store.delete_response("r1", owner=OWNER)
    assert await store.context("r3", owner=OWNER) is None
    assert texts(await store.outputs("r3", owner=OWNER)) == ["r3 out"]


async def test_a_deleted_response_is_gone_with_all_that_is_its(store: Store) -> None:
    await store.begin(response("r1"), items("in"))
    await store.log("r1", batch(0, 4))
    await finished(store, "r1", outputs=items("out"))
    await answered(store, "r2")
    assert await store.delete_response("r1", owner=OWNER)
    assert not await store.delete_response("r1", owner=OWNER)
    assert await store.response("r1", owner=OWNER) is None
    assert await store.outputs("r1", owner=OWNER) == []
    assert await store.events("r1", after=-1, limit_bytes=100) == []
    assert texts(await store.outputs("r2", owner=OWNER)) == ["r2 out"]


async def test_a_response_deleted_while_it_runs_does_not_come_back(store: Store) -> None:
    await store.begin(response("r1"), items("in"))
    assert await store.delete_response("r1", owner=OWNER)
    await store.log("r1", batch(0, 4))
    await finished(store, "r1", outputs=items("out"), last_events=batch(5, 6))
    assert await store.response("r1", owner=OWNER) is None
    assert await store.outputs("r1", owner=OWNER) == []
    assert await store.events("r1", after=-1, limit_bytes=100) == []
