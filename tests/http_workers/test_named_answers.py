"""Requests that name an answer of another HTTP worker: read, read again, cancelled, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from millstream.api.peers.answer_ids import named_worker, new_answer_id
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


@asynccontextmanager
async def resumable(worker: HttpWorker) -> AsyncIterator[str]:
    """The id of a completion that goes on without its reader, who has left."""
    worker.speaker.say(TEXT)
    body, headers = SAID | {"stream": True}, {"X-Resumable": "true"}
    with worker.speaker.silent(after=3):
        asking = worker.stream("POST", "/v1/chat/completions", json=body, headers=headers)
        async with asking as reader:
            made: str = (await reader.first())["id"]
        yield made


def has_letters(number: int, seen: str) -> bool:
    """Whether events say so many letters, in however many of them."""
    events = [event.partition("data: ")[2] for event in seen.split("\n\n")[:-1]]
    said = [json.loads(event) for event in events if "output_text.delta" in event]
    return sum(len(each["delta"]) for each in said) >= number


async def test_ids_say_who_makes_the_answer(two: Two) -> None:
    for number, worker in enumerate(two):
        worker.speaker.say("ok")
        made = await worker.ask("POST", "/v1/responses", json={"input": "x"})
        assert named_worker(made["id"]) == number
        said = await worker.ask("POST", "/v1/chat/completions", json=SAID)
        assert named_worker(said["id"]) == number
        said = await worker.ask("POST", "/v1/completions", json={"prompt": "x"})
        assert named_worker(said["id"]) == number


async def test_a_response_is_read_where_it_is_made(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=3):
        made = await maker.begin()
        (run,) = maker.runs
        await until(lambda: bool(run.snapshot()["output"]))
        shown = await here.ask("GET", f"/v1/responses/{made}")
        assert shown["status"] == "in_progress"
        assert shown == run.snapshot()
    await maker.settled()
    assert await here.text(made) == await maker.text(made) == TEXT


async def test_what_is_not_stored_is_found_while_it_is_made(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=3):
        body = {"input": "x", "store": False, "stream": True}
        async with maker.stream("POST", "/v1/responses", json=body) as reader:
            made = (await reader.first())["response"]["id"]
            shown = await here.ask("GET", f"/v1/responses/{made}")
            assert shown["status"] == "in_progress"
            ended = await here.ask("POST", f"/v1/responses/{made}/cancel")
            assert ended["status"] == "cancelled"
    await here.ask("GET", f"/v1/responses/{made}", 404)


async def test_events_come_as_they_are_made(two: Two) -> None:
    """The reader has each event before there is a next one."""
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=1):
        made = await maker.begin()
        url = f"/v1/responses/{made}?stream=true"
        async with here.stream("GET", url) as reader:
            assert reader.response.headers["content-type"].startswith("text/event-stream")
            for num_letters in (1, 2, 3, 4):
                maker.speaker.allow(num_letters + 2)  # what may become a marker is held back
                await reader.until(partial(has_letters, num_letters))
            maker.speaker.allow(None)
            seen = await reader.rest()
    assert seen == (await maker.client.get(url)).text
    assert seen.count("\n\n") > 10


async def test_comments_of_a_silent_stream_come_through(start_workers: Callable[..., Any]) -> None:
    here, maker = await start_workers(ping_seconds=1)
    maker.speaker.say(TEXT)
    with maker.speaker.silent():
        made = await maker.begin()
        url = f"/v1/responses/{made}"
        query = {"stream": "true", "starting_after": "1"}
        async with here.stream("GET", url, params=query) as reader:
            assert await reader.until(lambda seen: "\n\n" in seen) == ": ping\n\n"


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_stream_goes_on_where_its_reader_was(two: Two, after: int) -> None:
    _, maker = two
    maker.speaker.say(TEXT)
    made = await maker.begin()
    await maker.settled()
    for query, headers in (
        ({"stream": "true", "starting_after": str(after)}, {}),
        ({"stream": "true"}, {"Last-Event-ID": str(after)}),
    ):
        read = [
            await worker.client.get(f"/v1/responses/{made}", params=query, headers=headers)
            for worker in two
        ]
        assert read[0].status_code == read[1].status_code == 200
        assert read[0].text == read[1].text
        assert f"id: {after + 1}\n" in read[0].text
        assert f"id: {after}\n" not in read[0].text


async def test_after_the_last_event_there_is_no_content(two: Two) -> None:
    here, maker = two
    maker.speaker.say("ok")
    made = await maker.begin()
    await maker.settled()
    url = f"/v1/responses/{made}?stream=true"
    last = (await here.client.get(url)).text.count("\n\n") - 1
    answer = await here.client.get(url, headers={"Last-Event-ID": str(last)})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_response_is_cancelled_where_it_is_made(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=3):
        made = await maker.begin()
        (run,) = maker.runs
        await until(lambda: bool(run.snapshot()["output"]))
        ended = await here.ask("POST", f"/v1/responses/{made}/cancel")
        assert ended["status"] == "cancelled"
        assert ended["output"], "what was said is kept"
        assert maker.context.engine.num_open == 0


async def test_a_response_is_deleted_where_it_is_made(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=3):
        made = await maker.begin()
        deleted = await here.ask("DELETE", f"/v1/responses/{made}")
        assert deleted == {"id": made, "object": "response", "deleted": True}
        assert not maker.runs
        assert maker.context.engine.num_open == 0
    for worker in two:
        await worker.ask("GET", f"/v1/responses/{made}", 404)


async def test_a_completion_is_read_again_and_cancelled(two: Two) -> None:
    here, maker = two
    async with resumable(maker) as made:
        url = f"/v1/chat/completions/{made}"
        async with here.stream("GET", f"{url}?stream=true&starting_after=0") as reader:
            await reader.first()
            assert reader.seen.startswith("id: 1\n")
            cancelled = await here.ask("POST", f"{url}/cancel")
            assert cancelled == {"id": made, "object": "request.cancelled", "cancelled": True}
            assert '"code":"cancelled"' in (await reader.rest()).replace(" ", "")
        await here.ask("POST", f"{url}/cancel", 404)
        await here.ask("DELETE", url)
    await maker.ask("GET", f"{url}?stream=true", 404)


async def test_a_completion_that_is_made_is_deleted(two: Two) -> None:
    here, maker = two
    async with resumable(maker) as made:
        deleted = await here.ask("DELETE", f"/v1/completions/{made}")
        assert deleted == {"id": made, "object": "completion.deleted", "deleted": True}
        assert not maker.runs
        assert maker.context.engine.num_open == 0


async def test_a_reader_who_leaves_leaves_both_workers(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=2):
        made = await maker.begin()
        await until(lambda: maker.num_connections == 1)  # its client keeps it open
        async with here.stream("GET", f"/v1/responses/{made}?stream=true") as reader:
            await reader.first()
            assert maker.num_connections == 2
            assert len(here.peers.forwarding) == 1
        await until(lambda: maker.num_connections == 1)
        await until(lambda: not here.peers.forwarding)
        assert [run.id for run in maker.runs] == [made], "it is made all the same"
    await maker.settled()
    assert await here.text(made) == TEXT


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_ids_that_nobody_has_are_unknown_everywhere(two: Two, method: str) -> None:
    here, _ = two
    unknown = [new_answer_id("resp_", 48, worker=n) for n in (0, 1, 2, 255)]
    for one in (*unknown, "resp_1", "nonsense", "01" * 24, f"other_{'01' * 24}"):
        error = (await here.ask(method, f"/v1/responses/{one}", 404))["error"]
        assert error["code"] == "response_not_found"


async def test_an_id_that_names_another_worker_is_not_that_answer(two: Two) -> None:
    _, maker = two
    maker.speaker.say("ok")
    made = await maker.begin()
    await maker.settled()
    forged = made[:-2] + "00"
    for worker in two:
        await worker.ask("GET", f"/v1/responses/{forged}", 404)


async def test_answers_of_a_server_with_more_workers_come_from_the_store(
    start_workers: Callable[..., Any],
) -> None:
    *_, fourth = await start_workers(4)
    fourth.speaker.say("ok")
    made = await fourth.begin()
    await fourth.settled()
    first, second = await start_workers(2)
    for worker in (first, second):
        shown = await worker.ask("GET", f"/v1/responses/{made}")
        assert shown["status"] == "completed"
    assert not second.num_connections - 1, "nobody was asked"


async def test_only_its_owner_finds_an_answer(start_workers: Callable[..., Any]) -> None:
    here, maker = await start_workers(api_key=["first", "second"])
    maker.speaker.say(TEXT)
    first, second = ({"Authorization": f"Bearer {key}"} for key in ("first", "second"))
    with maker.speaker.silent(after=2):
        body = {"input": "x", "background": True}
        made = (await maker.ask("POST", "/v1/responses", json=body, headers=first))["id"]
        url = f"/v1/responses/{made}"
        await here.ask("GET", url, 401)
        for method, path in (("GET", url), ("POST", f"{url}/cancel"), ("DELETE", url)):
            await here.ask(method, path, 404, headers=second)
        shown = await here.ask("GET", url, headers=first)
        assert shown["id"] == made
        assert (await here.ask("DELETE", url, headers=first))["deleted"]


async def test_many_readers_of_one_answer(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=2):
        made = await maker.begin()
        url = f"/v1/responses/{made}?stream=true"
        reading = [asyncio.create_task(here.client.get(url)) for _ in range(20)]
        await until(lambda: len(here.peers.forwarding) == 20)
    texts = {(await one).text for one in reading}
    assert texts == {(await maker.client.get(url)).text}
