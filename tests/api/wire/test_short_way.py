"""Pieces of a streamed body that go straight to the connection: the same bytes, and only when they
may. Over sockets, without an engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from millstream.api.wire.protocol import Protocol
from millstream.api.wire.short_way import piece_writer

PLAIN = [(b"content-type", b"text/event-stream")]
MEASURED = [*PLAIN, (b"content-length", b"6")]


class Answers:
    """An application. headers: of its answers. took: whether each piece went the short way."""

    def __init__(self) -> None:
        self.headers = PLAIN
        self.pieces = [b"ab", b"cdef"]
        self.took: list[bool] = []
        self.is_behind = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        write = piece_writer(scope)
        self.took.append(write(b"early"))
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        for piece in self.pieces:
            self.took.append(write(piece))
            if not self.took[-1]:
                self.is_behind.set()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.took.append(write(b"late"))


@pytest.fixture
def answers() -> Answers:
    return Answers()


async def ask(answers: Answers, *, is_read: bool = True) -> bytes:
    """Everything that the server sends for one request."""
    config, state = uvicorn.Config(answers, log_config=None), ServerState()  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    try:
        if not is_read:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await answers.is_behind.wait()
            writer.transport.resume_reading()  # type: ignore[attr-defined]
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()
        await asyncio.gather(*state.tasks)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


async def test_pieces_are_chunks_between_the_headers_and_the_end(answers: Answers) -> None:
    answer = await ask(answers)
    assert answers.took == [False, True, True, False]
    assert body_of(answer) == b"2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n"


async def test_other_bodies_go_the_long_way(answers: Answers) -> None:
    answers.headers = MEASURED
    assert body_of(await ask(answers)) == b"abcdef"
    assert answers.took == [False, False, False, False]


async def test_a_reader_that_is_behind_is_waited_for(answers: Answers) -> None:
    size, count = 1_000_000, 60
    answers.pieces = [b"x" * size] * count
    answer = await ask(answers, is_read=False)
    assert body_of(answer) == b"%x\r\n%b\r\n" % (size, b"x" * size) * count + b"0\r\n\r\n"


async def test_behind_another_server_all_goes_the_long_way() -> None:
    assert not piece_writer({"type": "http"})(b"x")
    assert not piece_writer({"type": "http", "state": {}})(b"x")
