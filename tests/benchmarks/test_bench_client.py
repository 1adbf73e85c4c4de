"""The load client against a scripted server: what ends well, what counts as an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.client import Target, ask, converse, play
from benchmarks.measures import Record, Slo
from benchmarks.wire import BodyDecoder, Endpoint, EventSplitter
from benchmarks.workloads import WORKLOADS, Conversation, alter

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
ROLE = '{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
ONE = '{"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}],"usage":null}'
TWO = '{"choices":[{"index":0,"delta":{"content":" two"}}]}'
FINISH = '{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length"}]}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}'
DONE = "[DONE]"
ASKED = Conversation(turns=("hello",), max_tokens=2)

Handler = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


def chunked(*events: str, end: bool = True) -> bytes:
    body = b""
    for event in events:
        data = f"data: {event}\n\n".encode()
        body += b"%x\r\n%s\r\n" % (len(data), data)
    return body + (b"0\r\n\r\n" if end else b"")


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Target]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.split("\r\n") if line.startswith("Content-Length"))
        body = json.loads(await reader.readexactly(int(length.split(":")[1])))
        try:
            await handler(body, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        endpoint = Endpoint.parse(f"http://127.0.0.1:{port}")
        yield Target(endpoint=endpoint, model="bench", timeout=5.0)
    finally:
        server.close()
        await server.wait_closed()


async def answer(data: bytes, conversation: Conversation = ASKED) -> Record:
    async def handler(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    async with serving(handler) as target:
        record, _ = await ask(target, [{"role": "user", "content": "hello"}], conversation)
        return record


async def test_a_full_stream_completes() -> None:
    record = await answer(HEAD + chunked(ROLE, ONE, TWO, FINISH, USAGE, DONE))
    assert (record.outcome, record.tokens, record.prompt_tokens) == ("completed", 7, 5)
    assert len(record.times) == 2


async def test_without_usage_and_done_pieces_are_counted() -> None:
    record = await answer(HEAD + chunked(ROLE, ONE, TWO, FINISH))
    assert (record.outcome, record.tokens, record.prompt_tokens) == ("completed", 2, None)


async def test_a_body_that_ends_with_the_connection_may_complete() -> None:
    head = HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"")
    body = "".join(f"data: {event}\r\n\r\n" for event in (ONE, FINISH, DONE)).encode()
    assert (await answer(head + body)).outcome == "completed"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HEAD + chunked(ONE, '{"error":{"message":"boom"}}'), "boom"),
        (HEAD + chunked(ONE, TWO, end=False), "cut"),
        (HEAD + chunked(ONE, FINISH, end=False), "cut"),
        (HEAD + chunked(ONE, TWO), "finish_reason"),
        (HEAD + chunked(), "finish_reason"),
        (b"", "lost"),
        (b"SSH-2.0-hello\r\n\r\n", "not HTTP"),
        (b'HTTP/1.1 429 Too Many\r\nContent-Length: 9\r\n\r\n{"a": 12}', 'HTTP 429: {"a": 12}'),
        (HEAD + b"zz\r\nnothing\r\n", "not HTTP"),
    ],
)
async def test_what_is_not_an_answer_is_an_error(data: bytes, reason: str) -> None:
    record = await answer(data)
    assert record.outcome == "failed"
    assert reason in record.error


async def test_a_server_that_hangs_runs_into_the_time_limit() -> None:
    async def handler(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(ONE, end=False))
        await asyncio.sleep(0.5)

    async with serving(handler) as target:
        hasty = Target(endpoint=target.endpoint, model="bench", timeout=0.1)
        record, _ = await ask(hasty, [], ASKED)
    assert (record.outcome, record.error) == ("failed", "the request took too long")


async def test_no_server_is_an_error() -> None:
    async with serving(lambda *_: asyncio.sleep(0)) as target:
        pass
    record, _ = await ask(target, [], ASKED)
    assert record.error.startswith("no connection")


async def test_cancelling_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def handler(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(chunked(ONE, end=False))
            await asyncio.sleep(0.005)
        closed.set()

    async with serving(handler) as target:
        cut = Conversation(turns=("hello",), max_tokens=100, cancel_after=3)
        record, _ = await ask(target, [], cut)
        await asyncio.wait_for(closed.wait(), 5)
    assert record.outcome == "cancelled"
    assert 3 <= record.tokens < 100


async def test_history_grows_and_every_body_is_the_same_but_for_it() -> None:
    bodies: list[dict[str, Any]] = []

    async def handler(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        bodies.append(body)
        writer.write(HEAD + chunked(ONE, TWO, FINISH, DONE))
        await writer.drain()

    async with serving(handler) as target:
        records = await converse(target, Conversation(turns=("a", "b"), max_tokens=2))
    assert [record.outcome for record in records] == ["completed"] * 2
    messages = [[message["content"] for message in body.pop("messages")] for body in bodies]
    assert messages == [["a"], ["a", "one two", "b"]]
    assert bodies[0] == bodies[1]
    assert set(bodies[0]) == {"model", "max_tokens", "temperature", "stream", "stream_options"}


async def test_a_conversation_that_fails_fails_all_its_turns() -> None:
    async def handler(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serving(handler) as target:
        records = await converse(target, Conversation(turns=("a", "b", "c"), max_tokens=2))
    assert [record.outcome for record in records] == ["failed"] * 3


async def test_a_workload_keeps_its_concurrency() -> None:
    now, most = 0, 0

    async def handler(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        writer.write(HEAD + chunked(ONE, TWO, FINISH, DONE))
        await writer.drain()
        now -= 1

    workload = alter(WORKLOADS["c4"], conversations=10, prompt=None, answer=2)
    async with serving(handler) as target:
        summary = await play(target, workload, [ASKED] * 10, Slo())
    assert (summary.completed, summary.output_tokens, most) == (10, 20, 4)


def test_bodies_and_events_are_read_however_they_are_cut() -> None:
    data = chunked(ONE, TWO, FINISH) + b"trailing"
    for size in (1, 2, 3, 7, 50, len(data)):
        decoder, splitter = BodyDecoder({"transfer-encoding": "chunked"}), EventSplitter()
        events = []
        for start in range(0, len(data), size):
            events += splitter.push(decoder.push(data[start : start + size]))
        assert decoder.is_complete
        assert events == [ONE.encode(), TWO.encode(), FINISH.encode()]


def test_comments_and_both_line_ends_are_understood() -> None:
    events = EventSplitter().push(b": ping\r\n\r\ndata:a\r\ndata: b\r\n\r\n: x\n\ndata: c\n\n")
    assert events == [b"a\nb", b"c"]


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_base_urls_come_with_and_without_v1(url: str) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.host, endpoint.port, endpoint.path) == ("h", 1, "/v1")


def test_a_base_url_must_be_http() -> None:
    with pytest.raises(ValueError, match="not an http"):
        Endpoint.parse("127.0.0.1:8080")
