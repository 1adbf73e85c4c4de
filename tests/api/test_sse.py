"""Streams that end badly, at the level of ASGI messages: httpx's transport would buffer them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from millstream.api.sse import EventStream

SCOPE = {"type": "http", "method": "POST"}


class Source:
    """Endless events; knows whether its cleanup ran, and whether the response told its end."""

    def __init__(self) -> None:
        self.is_closed = False
        self.num_ends = 0

    def end(self) -> None:
        self.num_ends += 1

    def stream(self, *, send_timeout: float = 60) -> EventStream:
        return EventStream(
            self.events(), on_end=self.end, ping_seconds=60, send_timeout=send_timeout
        )

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"data: x\n\n"
        finally:
            self.is_closed = True


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_reader_that_stops_is_closed() -> None:
    source, sent = Source(), []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 4:
            await asyncio.Event().wait()

    stream = source.stream(send_timeout=0.05)
    await asyncio.wait_for(stream(SCOPE, never, send), timeout=10)
    assert (source.is_closed, source.num_ends) == (True, 1)
    assert len(sent) == 4


async def test_client_that_leaves_closes_the_source_at_once() -> None:
    source, sent = Source(), []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 5:
            gone.set()

    await asyncio.wait_for(source.stream()(SCOPE, receive, send), timeout=10)
    assert (source.is_closed, source.num_ends) == (True, 1)


async def test_end_is_told_even_if_the_stream_never_began() -> None:
    source = Source()

    async def send(message: Any) -> None:
        raise OSError("the connection is gone")

    with pytest.raises(OSError, match="gone"):
        await source.stream()(SCOPE, never, send)
    assert (source.is_closed, source.num_ends) == (False, 1)


async def test_headers_that_keep_proxies_from_buffering() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def one() -> AsyncGenerator[bytes, None]:
        yield b"data: [DONE]\n\n"

    stream = EventStream(one(), on_end=Source().end, ping_seconds=60, send_timeout=60)
    await stream(SCOPE, never, send)
    headers = dict(sent[0]["headers"])
    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert [m["body"] for m in sent[1:]] == [b"data: [DONE]\n\n", b""]
