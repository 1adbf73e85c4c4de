"""Conversations: items in order, one response at a time, everything for its owner only."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from millstream.errors import ConversationLocked, NotFound
from millstream.store.records import StoredItem
from millstream.store.store import Store
from tests.store.things import (
    OWNER,
    STRANGER,
    answered,
    batch,
    conversation,
    finished,
    items,
    response,
    texts,
)


async def all_texts(store: Store, identifier: str = "c1") -> list[str] | None:
    return texts(await store.all_conversation_items(identifier, owner=OWNER))


async def test_a_conversation_is_read_as_it_was_made(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("one", "two"))
    assert await store.conversation("c1", owner=OWNER) == conversation("c1")
    assert await all_texts(store) == ["one", "two"]
    changed = await store.update_conversation("c1", owner=OWNER, metadata={"é": "\0"})
    assert changed == dataclasses.replace(conversation("c1"), metadata={"é": "\0"})
    assert await store.conversation("c1", owner=OWNER) == changed


async def test_items_come_in_pages(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("1", "2"))
    assert await store.add_items("c1", owner=OWNER, items=items("3", "4"))
    page = await store.conversation_items(
        "c1", owner=OWNER, after="item_4", limit=2, is_descending=True
    )
    assert page is not None
    assert (texts(page.items), page.has_more) == (["3", "2"], True)
    page = await store.conversation_items(
        "c1", owner=OWNER, after="item_2", limit=2, is_descending=False
    )
    assert page is not None
    assert (texts(page.items), page.has_more) == (["3", "4"], False)


async def test_a_single_item_is_read_and_deleted(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("1", "2"))
    assert await store.conversation_item("c1", "item_2", owner=OWNER) == items("2")[0]
    assert await store.delete_item("c1", "item_2", owner=OWNER)
    assert not await store.delete_item("c1", "item_2", owner=OWNER)
    assert await store.conversation_item("c1", "item_2", owner=OWNER) is None
    assert await all_texts(store) == ["1"]


async def test_a_stranger_finds_and_changes_nothing(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("1"))
    foreign = {"owner": STRANGER}
    assert await store.conversation("c1", **foreign) is None
    assert await store.all_conversation_items("c1", **foreign) is None
    page = store.conversation_items("c1", after=None, limit=1, is_descending=False, **foreign)
    assert await page is None
    assert await store.conversation_item("c1", "item_1", **foreign) is None
    assert await store.update_conversation("c1", metadata={}, **foreign) is None
    assert not await store.add_items("c1", items=items("2"), **foreign)
    assert not await store.delete_item("c1", "item_1", **foreign)
    assert not await store.delete_conversation("c1", **foreign)
    with pytest.raises(NotFound) as error:
        await store.begin(response("r1", conversation_id="c1", owner=STRANGER), [])
    assert (error.value.status, error.value.param) == (404, "conversation")
    assert await store.response("r1", owner=STRANGER) is None
    assert await store.conversation("c1", owner=OWNER) == conversation("c1")
    assert await all_texts(store) == ["1"]


async def test_a_response_appends_what_it_was_told_and_says(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("first"))
    await store.begin(response("r1", conversation_id="c1"), items("in 1", "in 2"))
    assert await all_texts(store) == ["first"]
    assert await store.add_items("c1", owner=OWNER, items=items("meanwhile"))
    await finished(store, "r1", outputs=items("out 1", "out 2"))
    assert await all_texts(store) == ["first", "meanwhile", "in 1", "in 2", "out 1", "out 2"]
    page = await store.inputs("r1", owner=OWNER, after="item_in 1", limit=9, is_descending=False)
    assert texts(page.items) == ["in 2"]
    assert texts(await store.outputs("r1", owner=OWNER)) == ["out 1", "out 2"]


async def test_one_response_at_a_time_is_made_in_a_conversation(store: Store) -> None:
    await store.create_conversation(conversation("c1"), [])
    begun = [store.begin(response(f"r{n}", conversation_id="c1"), items(f"{n}")) for n in range(5)]
    results = await asyncio.gather(*begun, return_exceptions=True)
    refused = [error for error in results if error is not None]
    assert len(refused) == 4
    assert all(isinstance(error, ConversationLocked) and error.status == 409 for error in refused)
    made = results.index(None)
    for number in range(5):
        assert (await store.response(f"r{number}", owner=OWNER) is None) == (number != made)
    await finished(store, f"r{made}")
    await store.begin(response("next", conversation_id="c1"), [])


@pytest.mark.parametrize("status", ["failed", "cancelled", "incomplete"])
async def test_however_a_response_ends_the_lock_is_given_back(store: Store, status: str) -> None:
    await store.create_conversation(conversation("c1"), [])
    await store.begin(response("r1", conversation_id="c1"), items("in"))
    await finished(store, "r1", status=status)
    await answered(store, "r2", conversation_id="c1")


async def test_deleting_the_response_gives_the_lock_back(store: Store) -> None:
    await store.create_conversation(conversation("c1"), [])
    await store.begin(response("r1", conversation_id="c1"), items("in"))
    assert await store.delete_response("r1", owner=OWNER)
    await answered(store, "r2", conversation_id="c1")
    assert await all_texts(store) == ["r2 in", "r2 out"]


async def test_a_deleted_response_leaves_its_conversation_as_it_is(store: Store) -> None:
    await store.create_conversation(conversation("c1"), [])
    await answered(store, "r1", conversation_id="c1")
    assert await store.delete_response("r1", owner=OWNER)
    assert await store.outputs("r1", owner=OWNER) == []
    assert await all_texts(store) == ["r1 in", "r1 out"]


async def test_a_deleted_conversation_takes_everything_with_it(store: Store) -> None:
    await store.create_conversation(conversation("c1"), items("first"))
    await answered(store, "r1", conversation_id="c1")
    await answered(store, "other")
    await store.begin(response("r2", conversation_id="c1"), items("in"))
    await store.log("r2", batch(0, 3))
    assert await store.delete_conversation("c1", owner=OWNER)
    await finished(store, "r2", outputs=items("out"))
    assert await store.conversation("c1", owner=OWNER) is None
    assert await all_texts(store) is None
    for name in ("r1", "r2"):
        assert await store.response(name, owner=OWNER) is None
        assert await store.outputs(name, owner=OWNER) == []
        assert await store.events(name, after=-1, limit_bytes=99) == []
    await store.create_conversation(conversation("c1"), [])
    assert await all_texts(store) == []
    assert await store.response("other", owner=OWNER) is not None


async def test_an_item_deleted_from_its_conversation_is_gone_from_the_response(
    store: Store,
) -> None:
    await store.create_conversation(conversation("c1"), [])
    await answered(store, "r1", conversation_id="c1")
    assert await store.delete_item("c1", "item_r1 out", owner=OWNER)
    assert await store.outputs("r1", owner=OWNER) == []


async def test_a_response_made_in_a_conversation_is_followed_with_what_it_was_told(
    store: Store,
) -> None:
    await store.create_conversation(conversation("c1"), items("first"))
    await answered(store, "r1", conversation_id="c1")
    await answered(store, "r2", conversation_id="c1")
    await answered(store, "r3", previous_id="r1")
    told = ["first", "r1 in", "r1 out", "r3 in", "r3 out"]
    assert texts(await store.context("r3", owner=OWNER)) == told


async def test_many_items_are_added_at_once(store: Store) -> None:
    many = [StoredItem(id=f"i{n}", data={"id": f"i{n}", "text": str(n)}) for n in range(3_000)]
    await store.create_conversation(conversation("c1"), many)
    assert await store.all_conversation_items("c1", owner=OWNER) == many
