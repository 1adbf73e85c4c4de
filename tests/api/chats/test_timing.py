"""How long what of an answer took: measured where it is made, shown while it runs and after."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.api.openai.responses.timing import AnswerTiming
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import Content, Reasoning
from tests.api.chats.conftest import Visitor
from tests.api.chats.test_chats import hold

PARTS = ("queue_seconds", "first_token_seconds", "reasoning_seconds", "total_seconds")


def delta(*, num_reasoning: int = 0, text: str = "x") -> TextDelta:
    part = Reasoning(text) if num_reasoning else Content(text)
    return TextDelta(text, token_ids=(1,), parts=(part,), num_reasoning=num_reasoning)


def test_each_part_is_counted_from_its_own_start() -> None:
    now = [100.0]
    stream = TokenStream(1, send=lambda _: None, forget=lambda _: None)
    timing = AnswerTiming(stream, clock=lambda: now[0])
    now[0] = 101.0
    assert timing.shown() == dict.fromkeys(PARTS[:3]) | {"total_seconds": 1.0}
    stream.life.queue_seconds = 1.5
    for moment, num_reasoning in [(102.0, 1), (104.0, 3), (105.0, 0), (106.0, 0), (107.0, 1)]:
        now[0] = moment
        timing.note(delta(num_reasoning=num_reasoning))
    now[0] = 107.5
    assert list(timing.shown().values()) == [1.5, 2.0, 3.5, 7.5]
    now[0] = 108.0
    timing.end()
    now[0] = 200.0
    timing.end()
    assert list(timing.shown().values()) == [1.5, 2.0, 4.0, 8.0]


async def timing_of(visitor: Visitor, chat: str) -> dict[str, Any]:
    """That of the last answer; what was asked has none."""
    shown = await visitor.ask("GET", f"/{chat}")
    question, answer = shown["messages"][-2:]
    assert question["timing"] is None
    assert set(answer["timing"]) == set(PARTS)
    found: dict[str, Any] = answer["timing"]
    return found


async def test_an_answer_says_how_long_it_took(visitor: Visitor) -> None:
    chat = await visitor.create()
    made = await visitor.say("Hi", "<think>Hm, let me see.</think>Hello", chat=chat)
    timing = await timing_of(visitor, chat)
    assert 0 <= timing["queue_seconds"] <= timing["first_token_seconds"]
    assert 0 < timing["reasoning_seconds"] < timing["total_seconds"]
    assert timing["first_token_seconds"] < timing["total_seconds"]
    assert await timing_of(visitor, chat) == timing
    # The object of OpenAI's API has no such member.
    assert "timing" not in (await visitor.client.get(f"/v1/responses/{made}")).json()


async def test_it_is_told_while_the_answer_runs_and_when_it_ends_badly(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await visitor.create()
    visitor.desk.say("Hello")
    goes_on = hold(visitor, monkeypatch)
    body = {"content": "Hi", "background": True}
    made = await visitor.ask("POST", f"/{chat}/messages", json=body)
    running = await timing_of(visitor, chat)
    assert running["first_token_seconds"] is None
    while (await timing_of(visitor, chat))["total_seconds"] <= running["total_seconds"]:
        pass  # it goes on to be counted, in milliseconds
    cancelled = await visitor.client.post(f"/v1/responses/{made['id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    ended = await timing_of(visitor, chat)
    assert ended["total_seconds"] > running["total_seconds"] >= 0
    assert await timing_of(visitor, chat) == ended
    body = {"content": "More", "background": True, "timeout": 1.0}
    await visitor.ask("POST", f"/{chat}/messages", json=body)
    await asyncio.gather(*(run.settled() for run in visitor.desk.runs))
    goes_on.set()
    shown = await visitor.ask("GET", f"/{chat}")
    assert shown["messages"][-1]["status"] == "failed"
    assert (await timing_of(visitor, chat))["total_seconds"] >= 1.0
