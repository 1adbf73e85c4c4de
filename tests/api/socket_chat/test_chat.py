"""Chat over /ws: messages, conversations, refusals."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from tests.api.socket_chat.conftest import (
    Desk,
    byte_tokenizer,
    chatting,
    desk,
    is_last,
    marked_tokenizer,
    talk,
    text_of,
)
from tests.api.socket_client import Refusal

__all__ = ["byte_tokenizer", "desk", "marked_tokenizer", "talk"]


async def test_an_answer_comes_in_pieces_with_the_id_of_its_message(desk: Desk) -> None:
    desk.say("<think>\nhm\n</think>\nHello you")
    async with chatting(desk.context) as chat:
        await chat.send(7, "Hi")
        frames = await chat.frames()
    assert all(frame["id"] == 7 for frame in frames)
    assert frames[0] == {"id": 7, "text": ""}
    assert text_of(frames) == "Hello you"
    assert "".join(frame.get("reasoning", "") for frame in frames) == "hm"
    assert frames[-1]["finish_reason"] == "stop"
    usage = frames[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_the_page_of_llm_token_stream_shows_every_answer(desk: Desk) -> None:
    """As its script does: an empty text makes the entry that its id counts to, if it is the next;
    any other is added to the entry of its id, which must be there."""
    desk.say("Hello you")
    shown: list[str] = []
    async with chatting(desk.context) as chat:
        for number in range(3):
            await chat.send(number)
        await chat.send(3, temperature=9)
        num_ended = 0
        while num_ended < 4:
            frame = await chat.hear()
            if frame["text"] == "" and frame["id"] == len(shown):
                shown.append("")
            else:
                shown[frame["id"]] += frame["text"]
            num_ended += is_last(frame)
    assert shown == ["Hello you"] * 3 + [""]


async def test_each_message_is_said_by_itself(desk: Desk) -> None:
    desk.say("one", "two")
    async with chatting(desk.context) as chat:
        assert await chat.answer("first") == "one"
        assert await chat.answer("second") == "two"
        assert [said["content"] for said in desk.shown] == ["second"]


async def test_messages_of_the_same_id_do_not_mix(desk: Desk) -> None:
    desk.say("hello")
    async with chatting(desk.context) as chat:
        await chat.send(0, conversation="new")
        name = (await chat.frames())[0]["conversation"]
        texts = ["a" * 300, "b" * 300, "c" * 300]
        desk.say(*texts)
        for _ in range(2):
            await chat.send(1)
        await chat.send(1, conversation=name)  # which would be answered beside the others
        frames = (await chat.answers(3))[1]
        ends = [place for place, frame in enumerate(frames) if "finish_reason" in frame]
        parts = [text_of(frames[: ends[0]]), text_of(frames[ends[0] : ends[1]])]
        assert [*parts, text_of(frames[ends[1] :])] == texts


async def test_a_conversation_is_gone_on_with(desk: Desk) -> None:
    desk.say("one", "two", "three", "four")
    async with chatting(desk.context) as chat:
        await chat.send(0, "first", conversation="new")
        frames = await chat.frames()
        name = frames[0]["conversation"]
        assert text_of(frames) == "one"
        # Without waiting: in their order.
        await chat.send("a", "second", conversation=name)
        await chat.send("b", "third", conversation=name, instructions="Be short.")
        assert {k: text_of(frames) for k, frames in (await chat.answers(2)).items()} == {
            "a": "two",
            "b": "three",
        }
    said = ["Be short.", "first", "one", "second", "two", "third"]
    assert [message["content"] for message in desk.shown] == said
    items = await desk.get(f"/v1/conversations/{name}/items", order="asc")
    assert [item["content"][0]["text"] for item in items["data"]][-1] == "three"


async def test_a_url_names_the_conversation_of_all_messages(desk: Desk) -> None:
    desk.say("one", "two", "three")
    async with chatting(desk.context, "conversation=new") as chat:
        await chat.send(0, "first")
        name = (await chat.frames())[0]["conversation"]
        assert await chat.answer("alone", conversation=None) == "two"
        assert [said["content"] for said in desk.shown] == ["alone"]
    async with chatting(desk.context, f"conversation={name}") as chat:
        assert await chat.answer("second") == "three"
    assert [said["content"] for said in desk.shown] == ["first", "one", "second"]


async def test_a_chat_is_gone_on_with(desk: Desk) -> None:
    desk.say("one", "two", "three", "four")
    async with chatting(desk.context, "chat=new") as chat:
        await chat.send(0, "first")
        await chat.send(1, "second")
        answers = await chat.answers(2)
        assert {k: text_of(frames) for k, frames in answers.items()} == {0: "one", 1: "two"}
        name = answers[0][0]["chat"]
        assert answers[1][0]["chat"] == name
        changed = {"settings": {"instructions": "Be short.", "max_output_tokens": 2}}
        assert (await desk.ask("POST", f"/v1/chats/{name}", json=changed)).status_code == 200
        await chat.send(2, "third", chat=name)
        assert (await chat.frames())[-1]["finish_reason"] == "length"
        assert await chat.answer("fourth", chat=name, max_tokens=50) == "four"
        said = ["Be short.", "first", "one", "second", "two", "third"]
        assert [message["content"] for message in desk.shown][:6] == said
        assert await chat.answer("alone", chat=None)
        assert [message["content"] for message in desk.shown] == ["alone"]
    shown = await desk.get(f"/v1/chats/{name}")
    assert shown["leaf"]
    assert len(shown["messages"]) >= 4


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("conversation=conv_x", 404, "conversation"),
        ("conversation=", 404, "conversation"),
        ("chat=chat_x", 404, "chat"),
        ("conversation=new&conversation=new", 400, "conversation"),
        ("x=1", 400, "x"),
        ("conversation=new&x=1", 400, "conversation"),
    ],
)
async def test_a_wrong_url_is_refused(desk: Desk, query: str, status: int, param: str) -> None:
    with pytest.raises(Refusal) as refused:
        async with chatting(desk.context, query):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": 5}, "text"),
        ({"text": None}, "text"),
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "min_tokens": 2}, "min_tokens"),
        ({"reasoning_effort": "none at all"}, "reasoning_effort"),
        ({"input": "x"}, "input"),
        ({"stream": True}, "stream"),
        ({"no_such_field": None}, "no_such_field"),
        ({"conversation": 5}, "conversation"),
        ({"chat": 5}, "chat"),
        ({"chat": "chat_x"}, "chat"),
        ({"chat": "new", "conversation": "new"}, "chat"),
        ({"conversation": {"id": "x"}}, "conversation"),
        ({"conversation": ""}, "conversation"),
        ({"conversation": "conv_x"}, "conversation"),
        ({"cancel": False}, "cancel"),
        ({"cancel": True}, "text"),
    ],
)
async def test_a_wrong_field_is_named(desk: Desk, fields: Any, param: str) -> None:
    async with chatting(desk.context) as chat:
        error = await chat.refused(5, **fields)
        assert error["param"] == param
        assert "output" not in error["message"]
        desk.say("still here")
        assert await chat.answer() == "still here"


@pytest.mark.parametrize("identifier", [None, True, 1.5, [], {}, "x" * 257, 2**63])
async def test_an_id_is_a_number_or_a_text(desk: Desk, identifier: Any) -> None:
    async with chatting(desk.context) as chat:
        await chat.send(identifier)
        frame = await chat.hear()
        assert (frame["id"], frame["error"]["param"]) == (None, "id")
        desk.say("still here")
        await chat.send("x" * 256)
        assert text_of(await chat.frames()) == "still here"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{}", "invalid_json"),
        ("", "invalid_json"),
        ("Hello", "invalid_json"),
        ("[1]", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("{" + " " * 3000 + "}", "payload_too_large"),
    ],
)
async def test_what_is_no_frame_is_refused(desk: Desk, message: str | bytes, code: str) -> None:
    desk.say("still here")
    limit = 200_000 if code == "invalid_json" else 2000
    async with chatting(desk.context, payload_limit=limit) as chat:
        await chat.line.say(message)
        frame = await chat.hear()
        assert (frame["id"], frame["error"]["code"]) == (None, code)
        assert await chat.answer() == "still here"


async def test_fields_of_chat_are_obeyed(desk: Desk) -> None:
    desk.say("Hello you there")
    async with chatting(desk.context) as chat:
        await chat.send(max_tokens=2, model="any", temperature=0, seed=4, top_k=3)
        frames = await chat.frames()
        assert frames[-1]["finish_reason"] == "length"
        assert frames[-1]["usage"]["completion_tokens"] == 2
        assert await chat.answer(stop="you") == "Hello "
        error = await chat.refused(text="x" * 100_000)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "text")


async def test_what_is_kept_needs_a_store(desk: Desk) -> None:
    desk.say("one")
    context = replace(desk.context, store=None)
    async with chatting(context) as chat:
        assert await chat.answer() == "one"
        assert (await chat.refused(conversation="new"))["code"] == "store_off"
    with pytest.raises(Refusal) as refused:
        async with chatting(context, "conversation=new"):
            pass
    assert refused.value.code == "store_off"


async def test_a_conversation_is_its_owners(desk: Desk) -> None:
    keys = {"api_key": ["first", "second"]}
    desk.say("one")
    insecure = "openai-insecure-api-key."
    async with chatting(desk.context, protocols=["chat", insecure + "first"], **keys) as chat:
        assert chat.line.accepted["subprotocol"] == "chat"
        await chat.send(conversation="new")
        name = (await chat.frames())[0]["conversation"]
    headers = [("Authorization", "Bearer second")]
    async with chatting(desk.context, headers=headers, **keys) as chat:
        assert (await chat.refused(conversation=name))["code"] == "conversation_not_found"
    for options in ({}, {"headers": [*headers, ("origin", "https://evil.example")]}):
        with pytest.raises(Refusal) as refused:
            async with chatting(desk.context, **options, **keys):
                pass
        assert refused.value.response.status_code == (403 if options else 401)


async def test_http_is_told_that_the_path_is_a_websocket(desk: Desk) -> None:
    response = await desk.ask("GET", "/ws")
    assert response.status_code == 426
    assert response.json()["error"]["code"] == "upgrade_required"


async def test_each_answer_has_a_line_in_the_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "millstream.requests")
    desk.say("secret answer")
    async with chatting(desk.context, headers=[("x-request-id", "mine")]) as chat:
        await chat.answer("secret question")
        await chat.refused(temperature=9)
        await chat.line.say(json.dumps({"id": None}))
        await chat.hear()
    lines = [record.getMessage() for record in caplog.records]
    first, second, third, opened = lines
    assert first.startswith("WS /ws 200 id=mine completion=resp_")
    assert "finish=stop" in first
    assert second.startswith("WS /ws 400 id=mine error=invalid_value param=temperature")
    assert third.startswith("WS /ws 400 id=mine error=invalid_value param=id")
    assert opened.startswith("GET /ws 101 ")
    assert "secret" not in "".join(lines)
