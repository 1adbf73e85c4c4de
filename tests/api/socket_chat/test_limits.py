"""Chat over /ws: who is cancelled, held up or refused, and what is left behind."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.socket_chat.conftest import (
    Desk,
    byte_tokenizer,
    chatting,
    desk,
    marked_tokenizer,
    settled,
    talk,
    text_of,
)

__all__ = ["byte_tokenizer", "desk", "marked_tokenizer", "talk"]

LONG = "word " * 3000


async def test_an_answer_is_cancelled_by_its_id(desk: Desk) -> None:
    desk.say(LONG, "short")
    async with chatting(desk.context) as chat:
        with desk.talk.speaker.silent(after=8):
            await chat.send(1)
            while not (await chat.hear())["text"]:
                pass
            await chat.line.say(json.dumps({"id": 2, "cancel": True}))
            await chat.line.say(json.dumps({"id": 1, "cancel": True}))
            await chat.line.say(json.dumps({"id": 1, "cancel": True}))
            last = (await chat.frames())[-1]
        assert (last["id"], last["text"], last["finish_reason"]) == (1, "", "cancelled")
        assert last["usage"]["completion_tokens"] > 0
        # None of the others is answered: there was nothing to end.
        assert await chat.answer() == "short"
    assert desk.context.engine.num_open == 0


async def test_what_waits_is_cancelled_at_once(desk: Desk) -> None:
    desk.say(LONG)
    async with chatting(desk.context, "conversation=new") as chat:
        with desk.talk.speaker.silent(after=8):
            for identifier in (1, 2):
                await chat.send(identifier)
            await chat.send(3, max_tokens=2)
            await chat.line.say(json.dumps({"id": 2, "cancel": True}))
            while (frame := await chat.hear())["id"] == 1:
                assert "finish_reason" not in frame
            assert frame == {"id": 2, "text": "", "finish_reason": "cancelled", "usage": None}
            await chat.line.say(json.dumps({"id": 1, "cancel": True}))
        answers = await chat.answers(2)
        assert set(answers) == {1, 3}
        assert answers[1][-1]["finish_reason"] == "cancelled"
        assert answers[3][-1]["finish_reason"] == "length"


async def test_a_full_server_refuses_and_the_connection_stays(desk: Desk) -> None:
    """Four run and two wait."""
    desk.say(LONG)
    async with chatting(desk.context) as chat:
        with desk.talk.speaker.silent():
            for identifier in range(9):
                await chat.send(identifier)
            refused = [frame for frames in (await chat.answers(3)).values() for frame in frames]
            errors = [frame for frame in refused if "error" in frame]
            assert [frame["id"] for frame in errors] == [6, 7, 8]
            assert {frame["error"]["code"] for frame in errors} == {"overloaded"}
            assert {frame["status"] for frame in errors} == {429}
            assert {frame["error_type"] for frame in errors} == {"overloaded"}
            assert all(frame["retry_after"] >= 1 for frame in errors)
            for identifier in range(6):
                await chat.line.say(json.dumps({"id": identifier, "cancel": True}))
            await chat.answers(6)
        desk.say("short")
        assert await chat.answer() == "short"


async def test_too_much_sent_ahead_is_refused(desk: Desk) -> None:
    desk.say("x")
    async with chatting(desk.context, "conversation=new", payload_limit=2000) as chat:
        chat.line.is_reading.clear()
        for identifier in range(40):
            await chat.send(identifier)
        chat.line.is_reading.set()
        answers = await chat.answers(40)
        codes = [
            frames[-1]["error"]["code"] for frames in answers.values() if "error" in frames[-1]
        ]
        assert set(codes) == {"websocket_queue_full"}
        assert 4 <= len(codes) <= 8
        chat.line.is_reading.clear()
        for identifier in range(6):
            await chat.send(identifier, "x" * 1900, conversation=None)
        chat.line.is_reading.set()
        answers = await chat.answers(6)
        ends = [answers[identifier][-1].get("error", {}).get("code") for identifier in range(6)]
        assert ends == [None] * 4 + ["websocket_queue_full"] * 2
    assert desk.context.engine.num_open == 0


async def test_a_slow_reader_holds_up_nobody(desk: Desk) -> None:
    desk.say("word " * 50)
    async with chatting(desk.context) as slow, chatting(desk.context) as quick:
        slow.line.is_reading.clear()
        for identifier in range(4):
            await slow.send(identifier)
        assert await quick.answer() == "word " * 50
        await settled(desk)
        assert desk.context.engine.num_open == 0
        slow.line.is_reading.set()
        answers = await slow.answers(4)
        assert {text_of(frames) for frames in answers.values()} == {"word " * 50}


async def test_whoever_leaves_ends_what_runs(desk: Desk) -> None:
    desk.say(LONG)
    with desk.talk.speaker.silent(after=8):
        async with chatting(desk.context) as chat:
            for identifier in range(3):
                await chat.send(identifier)
            while not (await chat.hear())["text"]:
                pass
            await desk.talk.in_engine(3)
        await settled(desk)
    assert desk.context.engine.num_open == 0


async def test_whoever_says_nothing_is_closed(desk: Desk) -> None:
    async with chatting(desk.context, socket_idle_seconds=0.05) as chat:
        assert await chat.line.closing() == (1000, "idle for 0.05 s")


async def test_whoever_waits_for_an_answer_is_not_idle(desk: Desk) -> None:
    desk.say("one")
    asked = json.dumps({"id": 0, "text": "x"})
    desk.talk.speaker.allow(0)
    async with chatting(desk.context, socket_idle_seconds=0.05, sent=[asked]) as chat:
        assert (await chat.hear())["text"] == ""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await chat.hear()
        desk.talk.speaker.allow(None)
        assert text_of(await chat.frames()) == "one"


async def test_an_engine_that_fails_is_an_error_frame(desk: Desk) -> None:
    desk.say(LONG)
    async with chatting(desk.context) as chat:
        with desk.talk.speaker.silent(after=8):
            await chat.send("a")
            while not (await chat.hear())["text"]:
                pass
            desk.talk.speaker.texts.clear()  # whoever asks next lets the step fail
            await chat.send("b")
            await desk.talk.in_engine(2)
        frames = await chat.answers(2)
        for identifier in "ab":
            last = frames[identifier][-1]
            assert (last["status"], last["text"]) == (500, "")
            assert last["error"]["code"] == "step_failed"
        desk.say("short")
        assert await chat.answer() == "short"


async def test_pieces_are_paced_and_joined(desk: Desk) -> None:
    desk.say(LONG)
    loop = asyncio.get_running_loop()
    speaker = desk.talk.speaker
    async with chatting(desk.context, time_between_chunks=0.04) as chat:
        with speaker.silent(after=20):
            began = loop.time()
            await chat.send(1)
            num_pieces = 0
            while num_pieces < 6:
                frame = await chat.hear()
                assert "finish_reason" not in frame
                num_pieces += bool(frame["text"])
                speaker.allow(20 * (num_pieces + 1))
            assert loop.time() - began >= 5 * 0.04
            await chat.line.say(json.dumps({"id": 1, "cancel": True}))
            await chat.frames()


async def test_an_answer_that_has_ended_is_not_held_back(desk: Desk) -> None:
    desk.say("word " * 20)
    async with chatting(desk.context, time_between_chunks=60) as chat:
        await chat.send(1)
        frames = await chat.frames()
        assert text_of(frames) == "word " * 20
        assert len(frames) <= 4
