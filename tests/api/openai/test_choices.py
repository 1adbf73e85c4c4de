"""Several streams read as one: order of arrival, endings, failures, leaving early."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest
from tokenizers import Tokenizer

from millstream.core.request import FinishReason, TokenEvent
from millstream.errors import GenerationFailed
from millstream.generation.choices import Choice, merge
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler


class ScriptedStream:
    """Gives the events a test puts in; a failure is raised."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[TokenEvent | Exception] = asyncio.Queue()
        self.is_closed = False
        self.num_told = 0
        self.finish_reason: FinishReason | None = None

    def put(self, token: int, reason: FinishReason | None = None) -> None:
        self.news.put_nowait(TokenEvent(1, (token,), reason, 0))

    async def __anext__(self) -> list[TokenEvent]:
        assert not self.is_closed, "read after its end"
        event = await self.news.get()
        if isinstance(event, Exception):
            raise event
        return [event]

    def tell(self, num_tokens: int) -> None:
        self.num_told += num_tokens

    def close(self, finish_reason: FinishReason | None = None) -> None:
        self.is_closed = True
        self.finish_reason = finish_reason


@pytest.fixture
def streams(byte_tokenizer: Tokenizer) -> tuple[list[ScriptedStream], list[Choice]]:
    scripted = [ScriptedStream() for _ in range(3)]
    choices = [
        Choice(cast(TokenStream, stream), TextAssembler(byte_tokenizer, prompt=[1], stops=["%"]))
        for stream in scripted
    ]
    return scripted, choices


Streams = tuple[list[ScriptedStream], list[Choice]]


async def test_whoever_has_news_is_next(streams: Streams) -> None:
    scripted, choices = streams
    found: list[tuple[int, str, Any]] = []
    async with aclosing(merge(choices)) as news:
        for index, token in [(2, 1), (2, 2), (0, 3), (1, 4)]:
            scripted[index].put(token)
            which, delta = await anext(news)
            found.append((which, delta.text, delta.finish_reason))
        for index in (1, 0, 2):
            scripted[index].put(6, "length")
            which, delta = await anext(news)
            found.append((which, delta.text, delta.finish_reason))
            assert scripted[index].is_closed
            assert sum(stream.is_closed for stream in scripted) == len(found) - 4
        with pytest.raises(StopAsyncIteration):
            await anext(news)
    assert found[:4] == [(2, "!", None), (2, '"', None), (0, "#", None), (1, "$", None)]
    assert [(which, reason) for which, _, reason in found[4:]] == [
        (1, "length"),
        (0, "length"),
        (2, "length"),
    ]


async def test_a_stop_string_ends_one_answer(streams: Streams) -> None:
    scripted, choices = streams
    async with aclosing(merge(choices)) as news:
        scripted[1].put(5)
        which, delta = await anext(news)
        assert (which, delta.text, delta.finish_reason) == (1, "", "stop")
        assert [stream.is_closed for stream in scripted] == [False, True, False]
        scripted[0].put(1)
        assert (await anext(news))[0] == 0


async def test_the_first_failure_is_everyones(streams: Streams) -> None:
    scripted, choices = streams
    async with aclosing(merge(choices)) as news:
        scripted[1].news.put_nowait(GenerationFailed("first"))
        scripted[2].news.put_nowait(GenerationFailed("second"))
        with pytest.raises(GenerationFailed, match="first"):
            await anext(news)
    assert len(asyncio.all_tasks()) == 1


async def test_leaving_early_leaves_nothing_behind(streams: Streams) -> None:
    scripted, choices = streams
    async with aclosing(merge(choices)) as news:
        scripted[0].put(1)
        scripted[1].news.put_nowait(GenerationFailed("nobody reads this"))
        assert (await anext(news))[0] == 0
    assert len(asyncio.all_tasks()) == 1


async def test_one_answer_needs_no_tasks(streams: Streams) -> None:
    scripted, choices = streams
    async with aclosing(merge(choices[:1])) as news:
        scripted[0].put(1)
        assert (await anext(news))[1].text == "!"
        scripted[0].put(2, "length")
        assert (await anext(news))[1].text == '"'
        with pytest.raises(StopAsyncIteration):
            await anext(news)
    assert scripted[0].is_closed
