"""One stream and its reader: what wakes it, what it gets, and leaving in between."""

from __future__ import annotations

import asyncio

import pytest

from millstream.core.request import Request, TokenEvent
from millstream.errors import GenerationFailed
from millstream.runtime.stream import TokenStream
from tests.fakes import make_request


class Engine:
    """Takes what streams send and forget."""

    def __init__(self) -> None:
        self.sent: list[Request] = []
        self.num_forgotten = 0

    def forget(self, stream: TokenStream) -> None:
        self.num_forgotten += 1

    def stream(self) -> TokenStream:
        stream = TokenStream(1, send=self.sent.append, forget=self.forget)
        stream.start(make_request(1, (1, 2)))
        return stream


def event(token: int) -> TokenEvent:
    return TokenEvent(1, (token,), None, 0)


async def result(reader: asyncio.Task[list[TokenEvent]]) -> list[TokenEvent]:
    """What it gets; a reader that nobody wakes fails instead of hanging."""
    return await asyncio.wait_for(reader, timeout=10)


async def waiting(stream: TokenStream) -> asyncio.Task[list[TokenEvent]]:
    """A reader that waits for news."""
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not reader.done()
    return reader


async def test_a_waiting_reader_gets_all_that_came_before_it_ran() -> None:
    stream = Engine().stream()
    reader = await waiting(stream)
    stream.push(event(1))
    stream.push(event(2))
    assert await result(reader) == [event(1), event(2)]
    reader = await waiting(stream)
    stream.push(event(3))
    assert await result(reader) == [event(3)]


async def test_what_comes_before_a_failure_is_delivered_first() -> None:
    stream = Engine().stream()
    reader = await waiting(stream)
    stream.push(event(1))
    stream.fail(GenerationFailed("planted"))
    assert await result(reader) == [event(1)]
    with pytest.raises(GenerationFailed, match="planted"):
        await anext(stream)


async def test_a_failure_wakes_a_reader() -> None:
    stream = Engine().stream()
    reader = await waiting(stream)
    stream.fail(GenerationFailed("planted"))
    with pytest.raises(GenerationFailed, match="planted"):
        await result(reader)


async def test_a_reader_that_leaves_takes_nothing_with_it() -> None:
    stream = Engine().stream()
    reader = await waiting(stream)
    reader.cancel()
    stream.push(event(1))  # after it was cancelled, before it has noticed
    await asyncio.gather(reader, return_exceptions=True)
    assert reader.cancelled()
    stream.push(event(2))
    assert await anext(stream) == [event(1), event(2)]


async def test_a_reader_that_leaves_after_it_was_woken_takes_nothing_either() -> None:
    stream = Engine().stream()
    reader = await waiting(stream)
    stream.push(event(1))
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert reader.cancelled()
    assert await anext(stream) == [event(1)]


async def test_two_readers_are_a_bug() -> None:
    stream = Engine().stream()
    reader = await waiting(stream)
    with pytest.raises(AssertionError, match="one reader"):
        await asyncio.wait_for(anext(stream), timeout=10)
    stream.push(event(1))
    assert await result(reader) == [event(1)], "the first one is not disturbed"
