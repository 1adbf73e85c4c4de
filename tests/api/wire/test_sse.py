"""Streams that end badly, at the level of ASGI messages: httpx's transport would buffer them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import anyio
import pytest

from millstream.api.wire.sse import EventStream, SendWatch

SCOPE = {"type": "http", "method": "POST"}


class Source:
    """Endless events; knows whether its cleanup ran, and whether the response told its end.

    is_slow_to_close: its cleanup waits for something.
    """

    def __init__(self, *, is_slow_to_close: bool = False) -> None:
        self.is_slow_to_close = is_slow_to_close
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
            if self.is_slow_to_close:
                await asyncio.sleep(0)  # a cleanup that is cut short does not get past this
            self.is_closed = True


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_reader_that_stops_is_closed() -> None:
    source, sent = Source(is_slow_to_close=True), []

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


async def test_client_that_leaves_during_a_send_closes_the_source_at_once() -> None:
    source, gone = Source(is_slow_to_close=True), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            gone.set()
            await asyncio.Event().wait()

    await asyncio.wait_for(source.stream()(SCOPE, receive, send), timeout=10)
    assert (source.is_closed, source.num_ends) == (True, 1)


async def test_a_source_that_fails_is_no_slow_reader() -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"data: x\n\n"
        raise ValueError("planted")

    async def send(message: Any) -> None:
        pass

    source = Source()
    stream = EventStream(failing(), on_end=source.end, ping_seconds=60, send_timeout=60)
    with pytest.raises(ValueError, match="planted"):
        await stream(SCOPE, never, send)
    assert source.num_ends == 1


class Clock:
    """The timers of an event loop, on a time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Clock:
        self._timers.append((when, callback))
        return self

    def cancel(self) -> None:
        self._timers.clear()

    @property
    def num_timers(self) -> int:
        return len(self._timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self._timers if timer[0] <= end]:
            first = min(due)
            self._timers.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


def watch_on(clock: Clock) -> tuple[anyio.CancelScope, SendWatch]:
    scope = anyio.CancelScope()
    return scope, SendWatch(scope, timeout=10, loop=cast(asyncio.AbstractEventLoop, clock))


@pytest.mark.parametrize("idle", [0.0, 3.0, 9.0, 11.0, 27.5])
async def test_a_send_has_its_whole_time_whenever_it_begins(idle: float) -> None:
    clock = Clock()
    scope, watch = watch_on(clock)
    with watch:
        clock.advance(idle)
        watch.begin()
        clock.advance(9.9)
        assert not scope.cancel_called
        clock.advance(0.2)
        assert scope.cancel_called


async def test_many_slow_sends_are_not_one_late_send() -> None:
    clock = Clock()
    scope, watch = watch_on(clock)
    with watch:
        for _ in range(20):
            watch.begin()
            clock.advance(9.0)
            watch.end()
            assert clock.num_timers == 1
        clock.advance(100.0)  # nothing to send: nobody is late
        assert not scope.cancel_called
    assert clock.num_timers == 0
