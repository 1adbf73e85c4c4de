"""Chats: trees of responses, found by their words, gone with all that belongs to them."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest, NotFound
from millstream.store.records import StoredChat, StoredItem
from millstream.store.store import Store
from tests.store.things import OWNER, STRANGER, batch, finished, response


def chat(identifier: str, *, owner: str = OWNER, changed: int = 1, **more: Any) -> StoredChat:
    values: dict[str, Any] = {"created": 1, "settings": {"temperature": 0.5}}
    return StoredChat(id=identifier, owner=owner, changed=changed, **(values | more))


def message(identifier: str, role: str, text: str) -> StoredItem:
    part = {"type": "input_text" if role == "user" else "output_text", "text": text}
    data = {"id": identifier, "type": "message", "role": role, "content": [part]}
    return StoredItem(id=identifier, data=data)


async def said(
    store: Store,
    identifier: str,
    before: str | None = None,
    *,
    asked: str = "Where?",
    question: str = "",
    answer: str = "Here.",
    chat_id: str = "chat_1",
) -> None:
    """A finished response in a chat. question: the id of what was asked."""
    begun = response(identifier, previous_id=before, chat_id=chat_id)
    await store.begin(begun, [message(question or f"q_{identifier}", "user", asked)])
    await finished(store, identifier, outputs=[message(f"a_{identifier}", "assistant", answer)])


async def branch(store: Store) -> list[str]:
    found = await store.chat_branch("chat_1", owner=OWNER)
    assert found is not None
    return [turn.response.id for turn in found.turns]


async def ids(store: Store, *words: str, owner: str = OWNER) -> list[str]:
    found, has_more = await store.chats(owner=owner, after=None, limit=10, words=words)
    assert not has_more
    return [one.id for one in found]


async def test_a_response_of_a_chat_becomes_the_leaf_of_its_branch(store: Store) -> None:
    await store.create_chat(chat("chat_1"))
    await said(store, "resp_1", asked="  Where is\nthe river? ")
    await said(store, "resp_2", "resp_1")
    await said(store, "resp_3", "resp_1", asked="And then?")
    found = await store.chat_branch("chat_1", owner=OWNER)
    assert found is not None
    assert [turn.response.id for turn in found.turns] == ["resp_1", "resp_3"]
    assert [[item.id for item in turn.inputs] for turn in found.turns] == [
        ["q_resp_1"],
        ["q_resp_3"],
    ]
    assert [item.id for item in found.turns[1].outputs] == ["a_resp_3"]
    assert (found.chat.leaf, found.chat.first_words) == ("resp_3", "Where is the river?")
    assert found.chat.settings == {"temperature": 0.5}
    told = await store.context("resp_3", owner=OWNER)
    assert told is not None
    assert [item.id for item in told] == ["q_resp_1", "a_resp_1", "q_resp_3", "a_resp_3"]


async def test_versions_of_answers_and_questions_are_told_apart(store: Store) -> None:
    await store.create_chat(chat("chat_1"))
    await said(store, "resp_1", question="q")
    await said(store, "resp_2", question="q")
    await said(store, "resp_3", question="other")
    await said(store, "resp_4", "resp_2")
    tree = await store.chat_tree("chat_1")
    (first,) = tree.branch("resp_1")
    assert tree.answers(first) == ["resp_1", "resp_2"]
    assert tree.questions(first) == ["resp_1", "resp_3"]
    assert tree.last_below("resp_2") == "resp_4"
    assert tree.last_below("resp_1") == "resp_1"
    await store.update_chat("chat_1", owner=OWNER, changes={"leaf": tree.last_below("resp_2")})
    assert await branch(store) == ["resp_2", "resp_4"]


async def test_only_what_is_of_the_chat_and_its_owner_is_followed(store: Store) -> None:
    await store.create_chat(chat("chat_1"))
    await store.create_chat(chat("chat_2", owner=STRANGER))
    await said(store, "resp_1")
    with pytest.raises(NotFound, match="chat_2"):
        await said(store, "resp_2", chat_id="chat_2")
    await store.create_chat(chat("chat_3"))
    with pytest.raises(NotFound, match="no response 'resp_1' in this chat"):
        await said(store, "resp_3", "resp_1", chat_id="chat_3")
    assert await store.response("resp_3", owner=OWNER) is None
    third = await store.chat("chat_3", owner=OWNER)
    assert third is not None
    assert third.leaf is None
    assert await store.chat_branch("chat_1", owner=STRANGER) is None
    assert await store.update_chat("chat_1", owner=STRANGER, changes={"title": "mine"}) is None
    assert await store.clear_chat("chat_1", owner=STRANGER) is None
    assert not await store.delete_chat("chat_1", owner=STRANGER)
    assert await branch(store) == ["resp_1"]


async def test_chats_are_listed_from_the_one_that_was_last_spoken_in(store: Store) -> None:
    for number in (1, 2, 3):
        await store.create_chat(chat(f"chat_{number}", changed=number))
    await store.create_chat(chat("chat_x", owner=STRANGER))
    assert await ids(store) == ["chat_3", "chat_2", "chat_1"]
    await said(store, "resp_1")
    assert await ids(store) == ["chat_1", "chat_3", "chat_2"]
    first, has_more = await store.chats(owner=OWNER, after=None, limit=2)
    assert ([one.id for one in first], has_more) == (["chat_1", "chat_3"], True)
    rest, has_more = await store.chats(owner=OWNER, after="chat_3", limit=2)
    assert ([one.id for one in rest], has_more) == (["chat_2"], False)
    with pytest.raises(InvalidRequest, match="after"):
        await store.chats(owner=OWNER, after="chat_x", limit=2)
    assert (await store.newest_chat_or(chat("chat_new"))).id == "chat_1"
    assert (await store.newest_chat_or(chat("chat_new", owner="c" * 64))).id == "chat_new"


async def test_chats_are_found_by_their_titles_and_what_was_said(store: Store) -> None:
    await store.create_chat(chat("chat_1", title="Flüsse 100%"))
    await store.create_chat(chat("chat_2"))
    await said(store, "resp_1", asked="Ist die ÖTZ lang?", answer='Sie "type" \0 ist 𝐥𝐚𝐧𝐠 🦊.')
    await said(store, "resp_2", chat_id="chat_2", asked="Other", answer="words_here")
    assert await ids(store, "FLÜSSE") == ["chat_1"]
    assert await ids(store, "ötz", "lang 🦊") == ["chat_1"]
    assert await ids(store, "ötz", "other") == []
    assert await ids(store, "0%") == ["chat_1"]
    assert await ids(store, "s_h") == ["chat_2"]
    assert await ids(store, "%w") == []
    assert await ids(store, "message") == []
    assert await ids(store, "ötz", owner=STRANGER) == []
    await store.update_chat("chat_1", owner=OWNER, changes={"title": None})
    assert await ids(store, "flüsse") == []


async def test_a_deleted_chat_is_gone_with_its_responses_items_and_events(store: Store) -> None:
    await store.create_chat(chat("chat_1"))
    await said(store, "resp_1")
    await store.begin(response("resp_2", previous_id="resp_1", chat_id="chat_1"), [])
    await store.log("resp_2", batch(0, 3))
    await store.begin(response("resp_other"), [message("m", "user", "stays")])
    assert await store.delete_chat("chat_1", owner=OWNER)
    assert not await store.delete_chat("chat_1", owner=OWNER)
    assert await store.chat_branch("chat_1", owner=OWNER) is None
    for identifier in ("resp_1", "resp_2"):
        assert await store.response(identifier, owner=OWNER) is None
        assert await store.events(identifier, after=-1, limit_bytes=9) == []
    assert await store.items(["q_resp_1", "a_resp_1"], owner=OWNER) == []
    assert len(await store.items(["m"], owner=OWNER)) == 1


async def test_a_cleared_chat_keeps_its_title_and_settings_alone(store: Store) -> None:
    await store.create_chat(chat("chat_1", title="Rivers"))
    await said(store, "resp_1", asked="secret")
    cleared = await store.clear_chat("chat_1", owner=OWNER)
    assert cleared is not None
    assert (cleared.title, cleared.settings) == ("Rivers", {"temperature": 0.5})
    assert (cleared.leaf, cleared.first_words) == (None, None)
    assert await ids(store, "secret") == []
    assert await branch(store) == []
    await said(store, "resp_2")
    assert await branch(store) == ["resp_2"]


async def test_what_followed_a_deleted_response_follows_the_one_before(store: Store) -> None:
    await store.create_chat(chat("chat_1"))
    await said(store, "resp_1")
    await said(store, "resp_2", "resp_1")
    await said(store, "resp_3", "resp_2")
    assert await store.delete_response("resp_2", owner=OWNER)
    assert await branch(store) == ["resp_1", "resp_3"]
    assert await store.delete_response("resp_3", owner=OWNER)
    assert await branch(store) == ["resp_1"]
    assert await store.delete_response("resp_1", owner=OWNER)
    assert await branch(store) == []
