"""What one connection may do, and for how long: over sockets, without an engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from millstream.api.wire import closing
from millstream.api.wire.protocol import Protocol

ANSWER_BYTES = 50_000_000
CHUNKED = b"Transfer-Encoding: chunked\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body to its end and says how long it was; `/refused` does not, `/large` is."""
    size = 0
    while scope["path"] != "/refused":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    body = b"x" * ANSWER_BYTES if scope["path"] == "/large" else b"%d bytes" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Patient(Protocol):
    """A connection that says when it is lost."""

    send_timeout = 0.2
    lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, head: bytes, body: bytes = b"") -> bytes:
        """The head of the answer, in lower case, and its body."""
        self.writer.write(head + b"\r\n" + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in answer.split(b"\r\n") if b"content-length" in line.lower()]
        return answer.lower() + await self.reader.readexactly(int(lengths[0].split(b":")[1]))


class Loopback:
    """A server in this process."""

    def __init__(self, port: int, lost: asyncio.Event) -> None:
        self._port = port
        self._lost = lost
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self._port))
        self.clients.append(client)
        return client

    async def wait_lost(self) -> None:
        """Waits until the server has given up a connection."""
        await asyncio.wait_for(self._lost.wait(), timeout=20)


@pytest.fixture
async def loopback(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loopback]:
    lost, state = asyncio.Event(), ServerState()
    monkeypatch.setattr(Patient, "lost", lost)
    config = uvicorn.Config(app, log_config=None)
    server = await asyncio.get_running_loop().create_server(
        lambda: Patient(config, state, {}), "127.0.0.1", 0
    )
    loopback = Loopback(server.sockets[0].getsockname()[1], lost)
    yield loopback
    for client in loopback.clients:
        client.writer.transport.abort()
    server.close()
    await asyncio.gather(*state.tasks)


def post(*headers: bytes, path: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST %b %b\r\nHost: x\r\n%b" % (path, version, b"".join(headers))


def refusal(answer: bytes) -> tuple[bytes, str, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert b"connection: close" in head
    return head.split()[1], error["code"], error["message"]


async def test_a_connection_is_kept(loopback: Loopback) -> None:
    client = await loopback.connect()
    for body in (b"4\r\nabcd\r\n1;a=b\r\ne\r\n0\r\nTrailer: x\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n"):
        answer = await client.ask(post(CHUNKED), body)
        assert answer.endswith(b"\r\n\r\n5 bytes")
        assert b"connection: close" not in answer


async def test_a_body_with_two_lengths_is_the_last(loopback: Loopback) -> None:
    client = await loopback.connect()
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await client.ask(post(b"Content-Length: 4\r\n", CHUNKED), b"0\r\n\r\n" + smuggled)
    assert answer.startswith(b"http/1.1 200 ")
    assert b"connection: close" in answer
    assert await client.reader.read() == b""


@pytest.mark.parametrize("version", [b"HTTP/9.9", b"HTTP/2.0", b"HTTP/0.9"])
async def test_other_versions_are_refused(loopback: Loopback, version: bytes) -> None:
    client = await loopback.connect()
    status, code, message = refusal(await client.ask(post(version=version)))
    assert (status, code) == (b"505", "invalid_http")
    assert "HTTP/1.1" in message
    assert await client.reader.read() == b""


async def test_heads_of_many_lines_are_refused(loopback: Loopback) -> None:
    client = await loopback.connect()
    assert (await client.ask(post(b"a: b\r\n" * 200))).startswith(b"http/1.1 200 ")
    assert refusal(await client.ask(post(b"a:\r\n" * 20_000)))[0] == b"431"


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\nx\r\n" * 200_000,
        b"1;%b\r\nx\r\n" % (b"e" * 30_000),
        b"0\r\n" + b"a:\r\n" * 200_000,
        b"2\r\nx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n",
        b"1\nx\n0\n\n\r\n",
    ],
    ids=["tiny chunks", "extensions", "trailers", "wrong length", "negative", "bare LF"],
)
async def test_what_is_mostly_frame_is_no_body(loopback: Loopback, body: bytes) -> None:
    client = await loopback.connect()
    assert refusal(await client.ask(post(CHUNKED), body))[:2] == (b"400", "invalid_http")
    assert await client.reader.read() == b""


async def test_a_body_in_small_chunks_is_read(loopback: Loopback) -> None:
    client = await loopback.connect()
    for size, count in ((1, 1000), (300, 7000)):
        body = (b"%x\r\n%b\r\n" % (size, b"x" * size)) * count + b"0\r\n\r\n"
        answer = await client.ask(post(CHUNKED), body)
        assert answer.endswith(b"\r\n\r\n%d bytes" % (size * count))


@pytest.mark.parametrize("framing", [b"Content-Length: 100000000\r\n", CHUNKED])
async def test_a_refused_body_is_not_waited_for(
    loopback: Loopback, framing: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "LINGER_SECONDS", 0.2)
    client = await loopback.connect()
    answer = await client.ask(post(framing, path=b"/refused"))
    assert b"connection: close" in answer
    client.writer.write(b"f" * 5)  # dropped, and not answered
    await loopback.wait_lost()
    assert await client.reader.read() == b""


async def test_a_refused_body_that_goes_on_is_cut_off(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "LINGER_SECONDS", 60)
    monkeypatch.setattr(closing, "LINGER_BYTES", 1_000_000)
    client = await loopback.connect()
    await client.ask(post(b"Content-Length: 100000000\r\n", path=b"/refused"))
    client.writer.write(b"x" * 50_000_000)
    with pytest.raises(ConnectionError):
        await client.writer.drain()
    await loopback.wait_lost()


async def test_a_client_that_is_done_is_not_waited_for(loopback: Loopback) -> None:
    client = await loopback.connect()
    before = time.monotonic()
    await client.ask(post(b"Content-Length: 100000000\r\n", path=b"/refused"))
    client.writer.close()
    await loopback.wait_lost()
    assert time.monotonic() - before < closing.LINGER_SECONDS / 2


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
async def test_an_answer_that_nobody_reads_is_dropped(loopback: Loopback, last: bytes) -> None:
    client = await loopback.connect()
    client.writer.write(post(last, path=b"/large") + b"\r\n")
    await client.reader.readexactly(10)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await loopback.wait_lost()


async def test_answers_that_wait_have_so_many_bytes(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two is dropped when the second comes, long before its time is over."""
    monkeypatch.setattr(Patient, "send_timeout", 60)
    monkeypatch.setattr(Patient, "unread", closing.UnreadAnswers(limit=ANSWER_BYTES))
    first, second = await loopback.connect(), await loopback.connect()
    for client in (first, second):
        client.writer.write(post(path=b"/large") + b"\r\n")
        await client.reader.readexactly(10)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await loopback.wait_lost()
    second.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await second.reader.readuntil(b"\r\n\r\n")
    assert len(await second.reader.readexactly(ANSWER_BYTES)) == ANSWER_BYTES


async def test_an_answer_that_is_read_slowly_is_whole(loopback: Loopback) -> None:
    client = await loopback.connect()
    client.writer.write(post(path=b"/large") + b"\r\n")
    await client.reader.readuntil(b"\r\n\r\n")
    size, began = 0, time.monotonic()
    while size < ANSWER_BYTES:
        size += len(await client.reader.read(1_000_000))
        await asyncio.sleep(0.01)
    assert time.monotonic() - began > Patient.send_timeout
