"""Cancelling by a name that the client chose, and chats whose answers other HTTP workers make."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from millstream.api.peers.answer_ids import new_answer_id
from tests.http_workers.two_workers import (
    SAID,
    HttpWorker,
    byte_tokenizer,
    marked_tokenizer,
    start_workers,
    two,
)
from tests.runtime.conftest import until

__all__ = ["byte_tokenizer", "marked_tokenizer", "start_workers", "two"]

Two = Sequence[HttpWorker]
TEXT = "one two three four"


async def begun(worker: HttpWorker, name: str, **headers: str) -> asyncio.Task[httpx.Response]:
    """A request of this name that has its place and waits for its second token."""
    worker.speaker.say(TEXT)
    worker.speaker.allow(1)
    before = worker.context.engine.num_open
    asking = worker.client.post(
        "/v1/chat/completions", json=SAID, headers={"x-request-id": name, **headers}
    )
    asked = asyncio.create_task(asking)
    await until(lambda: worker.context.engine.num_open > before)
    return asked


def cancel_path(name: str) -> str:
    return f"/v1/chat/completions/{name}/cancel"


async def test_a_request_is_cancelled_by_its_name_wherever_it_is(
    start_workers: Callable[..., Any],
) -> None:
    workers = await start_workers(3)
    for maker in workers:
        for asked in workers:
            running = await begun(maker, "mine")
            await asked.ask("POST", cancel_path("mine"))
            assert (await running).status_code == 499


async def test_all_of_a_name_are_cancelled(start_workers: Callable[..., Any]) -> None:
    workers = await start_workers(3)
    running = [await begun(worker, "mine") for worker in workers]
    await workers[1].ask("POST", cancel_path("mine"))
    assert {(await one).status_code for one in running} == {499}


async def test_a_name_that_looks_like_an_id_is_found(two: Two) -> None:
    """Another server's, for example, of which a request is about."""
    here, maker = two
    for number in (0, 1, 7):
        name = new_answer_id("chatcmpl-", 32, worker=number)
        running = await begun(maker, name)
        await here.ask("POST", cancel_path(name))
        assert (await running).status_code == 499


async def test_only_its_owner_cancels_by_a_name(start_workers: Callable[..., Any]) -> None:
    here, maker = await start_workers(api_key=["first", "second"])
    running = await begun(maker, "mine", **{"X-Api-Key": "first"})
    await here.ask("POST", cancel_path("mine"), 404, headers={"X-Api-Key": "second"})
    assert not running.done()
    await here.ask("POST", cancel_path("mine"), headers={"X-Api-Key": "first"})
    assert (await running).status_code == 499


async def test_a_name_that_nobody_has(two: Two) -> None:
    here, other = two
    for name in ("mine", new_answer_id("chatcmpl-", 32, worker=1), "a:b", "é"):
        error = (await here.ask("POST", f"/v1/completions/{name}/cancel", 404))["error"]
        assert error["code"] == "request_not_found"
    assert not other.counted, "requests of peers are counted where their clients are"


async def test_a_body_is_refused_before_anybody_is_asked(two: Two) -> None:
    here, maker = two
    running = await begun(maker, "mine")
    error = (await here.ask("POST", cancel_path("mine"), 400, json={"force": True}))["error"]
    assert error["param"] == "force"
    assert not running.done()
    await here.ask("POST", cancel_path("mine"), json={})
    assert (await running).status_code == 499


@pytest.mark.parametrize("way", ["delete", "clear"])
async def test_a_chat_ends_its_answers_at_other_workers(two: Two, way: str) -> None:
    here, maker = two
    chat = (await maker.ask("POST", "/v1/chats", json={}))["id"]
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=2):
        said = {"content": "x", "stream": True}
        async with maker.stream("POST", f"/v1/chats/{chat}/messages", json=said) as reader:
            made = (await reader.first())["response"]["id"]
        shown = await here.ask("GET", f"/v1/chats/{chat}")
        assert shown["running"] == [made]
        assert shown["messages"][-1]["status"] == "in_progress"
        if way == "delete":
            await here.ask("DELETE", f"/v1/chats/{chat}")
        else:
            await here.ask("POST", f"/v1/chats/{chat}/clear")
        assert not maker.runs
        assert maker.context.engine.num_open == 0
    for worker in two:
        await worker.ask("GET", f"/v1/responses/{made}", 404)
        if way == "clear":
            assert (await worker.ask("GET", f"/v1/chats/{chat}"))["messages"] == []


async def test_a_chat_is_deleted_whose_worker_is_gone(start_workers: Callable[..., Any]) -> None:
    here, maker, gone = await start_workers(3)
    chat = (await gone.ask("POST", "/v1/chats", json={}))["id"]
    gone.speaker.say(TEXT)
    with gone.speaker.silent(after=2):
        said = {"content": "x", "stream": True}
        async with gone.stream("POST", f"/v1/chats/{chat}/messages", json=said) as reader:
            await reader.first()
        for server in gone.server.servers:
            server.close()
        assert (await here.ask("DELETE", f"/v1/chats/{chat}"))["deleted"]
        await maker.ask("GET", f"/v1/chats/{chat}", 404)
