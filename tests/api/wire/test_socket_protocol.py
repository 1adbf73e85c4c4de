"""What a WebSocket may cost and how it ends: over sockets, without an engine."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from millstream.api.wire.protocol import Protocol
from millstream.api.wire.socket_protocol import SocketProtocol
from millstream.api.wire.sockets import Socket, SocketRoutes
from tests.certificates import make_certificate

KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
VERSION = "Sec-WebSocket-Version: 13\r\n"
UPGRADE = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
MAX_MESSAGE = 100_000
MASK = b"\0\0\0\0"


async def page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"plain"})


async def parrot(socket: Socket) -> None:
    """Says every message back, and of bytes how many there are."""
    await socket.accept(protocols=())
    while True:
        said = await socket.receive()
        await socket.send(said if isinstance(said, str) else f"{len(said)}")


async def flood(socket: Socket) -> None:
    await socket.accept(protocols=())
    while True:
        await socket.send("x" * 10_000)


GATE = asyncio.Event()


async def late(socket: Socket) -> None:
    await GATE.wait()
    await parrot(socket)


HANDLERS = {"/": parrot, "/flood": flood, "/late": late}
app = SocketRoutes(page, handlers=HANDLERS, root_path="")


class Patient(Protocol):
    send_timeout = 0.2


class Loopback:
    """A server in this process."""

    def __init__(self, port: int, state: ServerState, protocol: Callable[[], Protocol]) -> None:
        self.port = port
        self.protocol = protocol
        self.state = state
        self.writers: list[asyncio.StreamWriter] = []

    def connect(self, path: str = "/", **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}", **options)

    async def raw(self, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(f"{head}\r\n".encode("latin-1"))
        return reader, writer

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.raw(f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return reader, writer

    async def empty(self) -> None:
        """Waits until no connection is left."""
        while self.state.connections:  # noqa: ASYNC110, what is waited for sets no event
            await asyncio.sleep(0.005)


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    state = ServerState()
    config = uvicorn.Config(
        app,
        ws=SocketProtocol,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        log_config=None,
    )
    config.load()

    def protocol() -> Protocol:
        return Patient(config, state, {})

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    loopback = Loopback(server.sockets[0].getsockname()[1], state, protocol)
    yield loopback
    for writer in loopback.writers:
        writer.transport.abort()
    await asyncio.wait_for(loopback.empty(), timeout=20)
    server.close()
    await asyncio.gather(*state.tasks)


def frame(opcode: int, data: bytes = b"", *, is_last: bool = True) -> bytes:
    assert len(data) < 126
    return bytes([(0x80 if is_last else 0) | opcode, 0x80 | len(data)]) + MASK + data


async def closed_with(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(client.recv(), timeout=20)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_messages_go_to_and_fro(loopback: Loopback) -> None:
    async with loopback.connect() as client:
        for message in ("", "a", "ä" * 30_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["a", "b", "", "c"])
        assert await client.recv() == "abc"
        await client.send(b"12")
        assert await client.recv() == "2"
        await (await client.ping())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET / HTTP/1.1\r\n{UPGRADE}{VERSION}", 400),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}", 400),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{KEY}{VERSION}", 400),
        (f"GET / HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Key: short\r\n{VERSION}", 400),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}Sec-WebSocket-Version: 8\r\n", 400),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}Content-Length: 2\r\n", 400),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}X: {'x' * 20_000}\r\n", 431),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}X: x\r\n", 101),
        (f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}" + "X: x\r\n" * 150, 431),
        (f"POST / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}Content-Length: 0\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", 200),
    ],
)
async def test_a_handshake_is_answered_once(loopback: Loopback, head: str, status: int) -> None:
    reader, _ = await loopback.raw(head)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=20)
    assert int(answer.split()[1]) == status
    if status >= 400:
        body = json.loads(await reader.read())
        assert body["error"]["type"] == "invalid_request_error"
        assert b"content-type: application/json" in answer.lower()


async def test_a_message_that_is_too_large_ends_the_connection(loopback: Loopback) -> None:
    async with loopback.connect() as client:
        await client.send("x" * MAX_MESSAGE)
        assert len(await client.recv()) == MAX_MESSAGE
        await client.send("x" * (MAX_MESSAGE + 1))
        assert await closed_with(client) == 1009
    async with loopback.connect() as client:
        await client.send(["x" * 60_000, "x" * 60_000])
        assert await closed_with(client) == 1009


async def test_text_must_be_utf_8(loopback: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await loopback.opened()
    writer.write(frame(1, b"\xff"))
    assert (await reader.readexactly(4))[2:] == (1007).to_bytes(2)
    assert not caplog.records


async def test_a_message_has_a_limit_of_frames(loopback: Loopback) -> None:
    reader, writer = await loopback.opened()
    writer.write(frame(1, b"a", is_last=False) + frame(0, is_last=False) * 4000 + frame(0))
    assert (await reader.readexactly(3))[2:] == b"a"
    writer.write(frame(1, b"a", is_last=False) + frame(0, is_last=False) * 10_000)
    assert (await reader.readexactly(4))[2:] == (1009).to_bytes(2)


async def test_pings_in_masses_are_not_hoarded(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patient, "send_timeout", 60)
    _, writer = await loopback.opened()
    (connection,) = loopback.state.connections
    transport: Any = connection.transport  # type: ignore[union-attr]
    largest = 0
    for _ in range(200):
        writer.write(frame(9, b"x" * 125) * 1000)
        await writer.drain()
        largest = max(largest, transport.get_write_buffer_size())
    assert 0 < largest < 600_000


async def test_a_websocket_counts_among_the_connections(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patient, "max_connections", 1)
    await loopback.opened()
    reader, _ = await loopback.raw(f"GET / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 429 ")


async def test_a_client_that_stops_reading_is_closed(loopback: Loopback) -> None:
    reader, writer = await loopback.raw(f"GET /flood HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}")
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.wait_for(loopback.empty(), timeout=20)


async def test_when_the_server_ends_clients_are_told(loopback: Loopback) -> None:
    async with loopback.connect() as client:
        await client.send("a")
        await client.recv()
        for connection in list(loopback.state.connections):
            connection.shutdown()
        assert await closed_with(client) == 1012
    await asyncio.wait_for(loopback.empty(), timeout=3)


async def test_an_encrypted_connection_ends_as_soon(loopback: Loopback, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, password="mellon")
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key, "mellon")
    server = await asyncio.get_running_loop().create_server(
        loopback.protocol, "127.0.0.1", 0, ssl=own
    )
    url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with connect(url, ssl=ssl.create_default_context(cafile=certificate)) as client:
        await client.send("a")
        await client.recv()
        (connection,) = loopback.state.connections
        connection.shutdown()
        # Half of what a connection lingers for that cannot say that it is half closed.
        async with asyncio.timeout(2.5):
            assert await closed_with(client) == 1012
            await loopback.empty()
    server.close()


async def test_frames_before_the_answer_are_refused(
    loopback: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for early in (frame(1, b"a"), b"\xff\xff\xff\xff", frame(8), frame(9), b"\x81"):
        GATE.clear()
        reader, writer = await loopback.raw(f"GET /late HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}")
        while not any(isinstance(each, SocketProtocol) for each in loopback.state.connections):  # noqa: ASYNC110
            await asyncio.sleep(0)
        writer.write(early)
        if early[0] == 0xFF:
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=20)
            assert answer.split()[1] == b"400"
        GATE.set()
        writer.write_eof()
        await asyncio.wait_for(reader.read(), timeout=20)
        await asyncio.wait_for(loopback.empty(), timeout=20)
    assert not [record for record in caplog.records if record.exc_info]


async def test_random_bytes_end_a_connection_at_most(
    loopback: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    draw = random.Random(7)
    for _ in range(150):
        reader, writer = await loopback.opened()
        for _ in range(draw.randrange(1, 4)):
            if draw.random() < 0.5:
                data = draw.randbytes(draw.randrange(1, 60))
            else:
                opcode = draw.choice((0, 1, 2, 8, 9, 10, 3, 15))
                content = draw.randbytes(draw.randrange(0, 100))
                data = frame(opcode, content, is_last=draw.random() < 0.7)
            writer.write(data)
            if draw.random() < 0.3:
                await asyncio.sleep(0)
        if draw.random() < 0.5:
            writer.transport.abort()
        else:
            writer.write_eof()
            await asyncio.wait_for(reader.read(), timeout=20)
    await asyncio.wait_for(loopback.empty(), timeout=20)
    assert not caplog.records
