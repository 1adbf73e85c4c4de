"""Cancelling by id: running, waiting and being prepared; who is meant, and what is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.core.plan import Plan, StepOutput
from millstream.runtime.messages import FromEngine, Step
from millstream.runtime.stream import TokenStream
from millstream.text.chat_prompt import ChatFormatter
from tests.api.conftest import Api, serve
from tests.runtime.conftest import GatedRunner


class WatchedRunner(GatedRunner):
    """Tells of each plan before it waits for the permit to compute it."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.plans: asyncio.Queue[Plan] = asyncio.Queue()

    def step(self, plan: Plan) -> StepOutput:
        self._loop.call_soon_threadsafe(self.plans.put_nowait, plan)
        return super().step(plan)


class Server:
    """A server whose steps the test allows.

    streams: those that were handed to the engine. steps: what it said after each step.
    """

    def __init__(self, api: Api, runner: WatchedRunner) -> None:
        self.api = api
        self.engine = api.engine
        self.runner = runner
        self.streams: asyncio.Queue[TokenStream] = asyncio.Queue()
        self.steps: asyncio.Queue[Step] = asyncio.Queue()

    def ask(self, request_id: str, **fields: Any) -> asyncio.Task[httpx.Response]:
        body = {"messages": [{"role": "user", "content": "!%+,"}], "max_tokens": 20}
        body |= {"ignore_eos": True} | fields
        headers = {"x-request-id": request_id}
        asking = self.api.ask("POST", "/v1/chat/completions", json=body, headers=headers)
        return asyncio.create_task(asking)

    async def begin(self, request_id: str, **fields: Any) -> asyncio.Task[httpx.Response]:
        """Returns when all answers of the request are with the engine."""
        task = self.ask(request_id, **fields)
        for _ in range(fields.get("n", 1)):
            await self.streams.get()
        return task

    async def cancel(self, request_id: str, **options: Any) -> httpx.Response:
        path = f"/v1/chat/completions/{request_id}/cancel"
        return await self.api.ask("POST", path, **options)

    async def step(self, *, num_tokens: int) -> Step:
        """Allows one step, and waits for what it says; it has so many requests with a token."""
        self.runner.allow(1)
        while len((step := await self.steps.get()).tokens) != num_tokens:
            pass
        return step

    async def plan_of(self, count: int) -> Plan:
        """Goes on to a plan of so many requests, which the runner then holds."""
        while len((plan := await self.runner.plans.get()).chunks) != count:
            self.runner.allow(1)
        return plan


@pytest.fixture
async def server(
    byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    runner = WatchedRunner()
    async with serve(runner, byte_tokenizer) as api:
        server = Server(api, runner)
        start = TokenStream.start

        def watched_start(stream: TokenStream, *args: Any, **options: Any) -> None:
            start(stream, *args, **options)
            server.streams.put_nowait(stream)

        on_message = api.engine.on_message

        def watched_message(message: FromEngine) -> None:
            on_message(message)
            if isinstance(message, Step):
                server.steps.put_nowait(message)

        monkeypatch.setattr(TokenStream, "start", watched_start)
        monkeypatch.setattr(api.engine, "on_message", watched_message)
        try:
            yield server
        finally:
            runner.allow(10_000)


def assert_cancelled(response: httpx.Response, *, streamed: bool) -> None:
    """One error, at the end: an event of a stream, else the response."""
    assert response.status_code == (200 if streamed else 499)
    if streamed:
        *_, last, end = response.text.split("\n\n")
        assert end == ""
        assert last.startswith('data: {"error":')
        assert response.text.count("error_type") == 1
        assert "[DONE]" not in response.text
        response = httpx.Response(499, content=last.removeprefix("data: "))
    body = response.json()
    assert body["error"]["code"] == "cancelled"
    assert body["error_type"] == "incomplete_generation"


def requests_of(plan: Plan) -> set[int]:
    return {chunk.request_id for chunk in plan.chunks}


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
async def test_all_answers_are_gone_before_the_next_plan(streamed: bool, server: Server) -> None:
    staying = await server.begin("b", stream=True)
    leaving = await server.begin("a", n=3, stream=streamed)
    before = requests_of(await server.plan_of(4))
    response = await server.cancel("a")
    assert response.status_code == 200
    assert response.json() == {"id": "a", "object": "request.cancelled", "cancelled": True}
    assert server.engine.num_open == 1
    assert_cancelled(await leaving, streamed=streamed)
    await server.step(num_tokens=4)
    (chunk,) = (await server.runner.plans.get()).chunks
    assert chunk.request_id in before
    num_blocks = len(chunk.block_table)
    statistics = (await server.step(num_tokens=1)).statistics
    assert (statistics.num_running, statistics.num_waiting) == (1, 0)
    assert statistics.num_blocks_used == num_blocks
    server.runner.allow(1000)
    assert (await staying).text.endswith("data: [DONE]\n\n")
    assert (await server.cancel("a")).status_code == 404


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
async def test_one_who_waits_is_cancelled_at_once(streamed: bool, server: Server) -> None:
    running = [await server.begin(f"r{index}") for index in range(4)]
    waiting = await server.begin("w", stream=streamed)
    first = await server.plan_of(4)
    assert (await server.cancel("w")).status_code == 200
    assert_cancelled(await waiting, streamed=streamed)
    assert server.engine.num_open == 4
    server.runner.allow(1000)
    for task in running:
        assert (await task).status_code == 200
    while not server.runner.plans.empty():
        assert requests_of(server.runner.plans.get_nowait()) <= requests_of(first)


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
async def test_one_who_is_being_prepared(
    streamed: bool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status comes before the stream, and the engine never hears of it."""
    loop, entered, gate = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    tokenize = ChatFormatter.tokenize

    def held(chat: ChatFormatter, text: str, **options: Any) -> tuple[int, ...]:
        loop.call_soon_threadsafe(entered.set)
        assert gate.wait(30)
        return tokenize(chat, text, **options)

    monkeypatch.setattr(ChatFormatter, "tokenize", held)
    task = server.ask("p", stream=streamed, n=2)
    await entered.wait()
    assert (await server.cancel("p")).status_code == 200
    assert server.engine.num_open == 0
    gate.set()
    assert_cancelled(await task, streamed=False)
    assert server.streams.empty()


async def test_the_id_of_the_completion(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sequence[str]] = []
    open_many = server.engine.open_many

    def watched(count: int, *, names: Sequence[str]) -> list[TokenStream]:
        given.append(names)
        return open_many(count, names=names)

    monkeypatch.setattr(server.engine, "open_many", watched)
    task = await server.begin("r", stream=True)
    (known,) = given
    assert set(known) - {":r"} == {known[0]}
    await server.step(num_tokens=1)
    assert (await server.cancel(known[0])).status_code == 200
    response = await task
    assert_cancelled(response, streamed=True)
    assert f'"id": "{known[0]}"' in response.text
    for name in known:
        assert (await server.cancel(name)).status_code == 404


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
async def test_a_text_is_cancelled_by_either_route(route: str, server: Server) -> None:
    body = {"prompt": "!%+,", "max_tokens": 20, "stream": True, "n": 2, "ignore_eos": True}
    headers = {"x-request-id": "t"}
    asking = server.api.ask("POST", "/v1/completions", json=body, headers=headers)
    task = asyncio.create_task(asking)
    await server.streams.get()
    await server.streams.get()
    assert (await server.api.ask("POST", f"{route}/t/cancel")).status_code == 200
    assert_cancelled(await task, streamed=True)
    assert server.engine.num_open == 0


async def test_those_who_share_an_id_and_nobody_else(server: Server) -> None:
    pair = [await server.begin("pair"), await server.begin("pair")]
    others = [await server.begin("pai"), await server.begin("pairs")]
    assert (await server.cancel("pair")).status_code == 200
    for task in pair:
        assert_cancelled(await task, streamed=False)
    server.runner.allow(1000)
    for task in others:
        assert (await task).status_code == 200


async def test_ids_of_the_server_are_told_in_the_headers(server: Server) -> None:
    """An id that could do harm is not taken; the one in its place works."""
    server.runner.allow(1000)
    response = await server.ask("not harmless")
    request_id = response.headers["x-request-id"]
    assert len(request_id) == 32
    assert (await server.cancel(request_id)).status_code == 404  # it has ended


async def test_what_is_not_there_is_not_found(server: Server) -> None:
    server.runner.allow(1000)
    ended = (await server.ask("r")).json()["id"]
    for request_id in ("unknown", "r", ended, "x" * 3000):
        response = await server.cancel(request_id)
        assert response.status_code == 404
        error = response.json()["error"]
        assert (error["param"], error["code"]) == ("id", "request_not_found")
        assert len(error["message"]) < 300


async def test_an_answer_that_is_complete_cannot_be_cancelled(server: Server) -> None:
    """Its last event has come, though nobody has read it."""
    stream = server.engine.open_many(1, names=("s",))[0]
    stream.is_ended = True
    assert not server.engine.cancel("s")
    stream.close()


async def test_fields_are_refused(server: Server) -> None:
    task = await server.begin("r")
    response = await server.cancel("r", json={"reason": "x"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "reason")
    assert server.engine.num_open == 1
    assert (await server.cancel("r", json={})).status_code == 200
    assert_cancelled(await task, streamed=False)
