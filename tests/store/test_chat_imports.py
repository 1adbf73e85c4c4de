"""A chat that comes whole is stored as if it had been said here, on every database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from millstream.errors import StoreFailed
from millstream.store.records import ChatTurn
from millstream.store.store import Store
from millstream.store.tables import chats, responses
from tests.store.test_chats import chat, ids, message, said
from tests.store.things import OWNER, response

TIMING = {"queue_seconds": 0.5, "total_seconds": 2.0}


def turn(identifier: str, before: str | None = None, *, number: int = 1) -> ChatTurn:
    done = response(identifier, previous_id=before, status="completed", is_resumable=True)
    done = replace(done, resource={"id": identifier, "is_done": True})
    return ChatTurn(
        done,
        [message(f"q_{identifier}", "user", "Where?")],
        [message(f"a_{identifier}", "assistant", "Here.")],
    )


async def rows(store: Store, chat_id: str) -> list[dict[str, object]]:
    """The rows of a chat and its responses, without ids, times and sizes."""

    def read(connection: Connection) -> list[dict[str, object]]:
        mine = select(responses).where(responses.c.chat_id == chat_id)
        found = [
            *connection.execute(select(chats).where(chats.c.id == chat_id)).mappings(),
            *connection.execute(mine.order_by(responses.c.chat_number)).mappings(),
        ]
        varying = {"id", "used", "changed", "chat_id", "previous_id", "leaf", "chat_question"}
        varying |= {"resource", "size"}
        return [{k: v for k, v in row.items() if k not in varying} for row in found]

    return await store._reader.read(read)


async def test_it_is_as_if_it_had_been_said_here(store: Store) -> None:
    await store.create_chat(chat("chat_1"))
    await said(store, "resp_1")
    await said(store, "resp_2", "resp_1")
    turns = [turn("resp_3"), turn("resp_4", "resp_3")]
    await store.import_chat(chat("chat_2", leaf="resp_3"), turns)
    assert await rows(store, "chat_2") == await rows(store, "chat_1")
    found = await store.chat_branch("chat_2", owner=OWNER)
    assert found is not None
    assert [one.response.id for one in found.turns] == ["resp_3"]
    whole = await store.chat_branch("chat_2", owner=OWNER, is_whole=True)
    assert whole is not None
    assert [one.response.id for one in whole.turns] == ["resp_3", "resp_4"]
    assert (whole.chat.first_words, whole.chat.leaf) == ("Where?", "resp_3")
    told = await store.context("resp_4", owner=OWNER)
    assert told is not None
    assert [item.id for item in told] == ["q_resp_3", "a_resp_3", "q_resp_4", "a_resp_4"]
    assert set(await ids(store, "here")) == {"chat_1", "chat_2"}
    await said(store, "resp_5", "resp_4", chat_id="chat_2")
    assert await store.delete_chat("chat_2", owner=OWNER)
    assert await store.response("resp_3", owner=OWNER) is None


async def test_timing_comes_along(store: Store) -> None:
    timed = turn("resp_1")
    timed = replace(timed, response=replace(timed.response, timing=TIMING))
    await store.import_chat(chat("chat_1", leaf="resp_1"), [timed])
    found = await store.response("resp_1", owner=OWNER)
    assert found is not None
    assert found.timing == TIMING


async def test_it_comes_at_once_or_not_at_all(store: Store) -> None:
    with pytest.raises(StoreFailed):
        await store.import_chat(chat("chat_1", leaf="resp_1"), [turn("resp_1"), turn("resp_1")])
    assert await store.chat("chat_1", owner=OWNER) is None
    assert await store.response("resp_1", owner=OWNER) is None
