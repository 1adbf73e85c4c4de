"""Responses over a WebSocket."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter

from tests.api.openai.responses.conftest import (
    KEYS,
    Desk,
    byte_tokenizer,
    desk,
    marked_tokenizer,
    talk,
)
from tests.api.socket_client import Refusal, connected

__all__ = ["byte_tokenizer", "desk", "marked_tokenizer", "talk"]

OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
TWO_KEYS = {"api_key": ["first", "second"]}


def text_of(response: Any) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def kinds(events: list[Any]) -> list[str]:
    """The types of events in their order; in how many pieces a text comes is a matter of time."""
    return [kind for kind, _ in groupby(event["type"] for event in events)]


async def test_a_response_has_the_events_that_a_stream_has(desk: Desk) -> None:
    desk.say("<think>\nhm\n</think>\nHello you")
    streamed = await desk.events()
    async with connected(desk.context) as line:
        await line.create()
        events = await line.rest()
    for event in events:
        OFFICIAL.validate_python(event)
    assert kinds(events) == kinds(streamed)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert all("stream_id" not in event for event in events)
    assert text_of(events[-1]["response"]) == "Hello you"


async def test_one_connection_serves_one_request_after_another(desk: Desk) -> None:
    desk.say("one", "two", "three")
    async with connected(desk.context) as line:
        for _ in range(3):
            await line.create()
        ends = [(await line.rest())[-1]["response"] for _ in range(3)]
    assert [text_of(response) for response in ends] == ["one", "two", "three"]


async def test_what_is_not_stored_can_be_gone_on_from_here(desk: Desk) -> None:
    desk.say("Hello", "again", "and again")
    async with connected(desk.context) as line:
        first = await line.make(store=False, input="My name is Ada")
        second = await line.make(store=False, input="Hm", previous_response_id=first["id"])
        assert [said["content"] for said in desk.shown] == ["My name is Ada", "Hello", "Hm"]
        await line.make(store=False, input="So", previous_response_id=second["id"])
        assert len(desk.shown) == 5
        await line.make(store=False, input="Fork", previous_response_id=first["id"])
        assert [said["content"] for said in desk.shown] == ["My name is Ada", "Hello", "Fork"]
        assert await desk.context.store.response(first["id"], owner="") is None  # type: ignore[union-attr]
    async with connected(desk.context) as other:
        error = await other.refused(previous_response_id=first["id"])
        assert error["code"] == "previous_response_not_found"
        assert error["param"] == "previous_response_id"


async def test_what_is_stored_can_be_gone_on_from_anywhere(desk: Desk) -> None:
    desk.say("Hello", "over", "http", "back")
    async with connected(desk.context) as line:
        first = await line.make(input="1")
    async with connected(desk.context) as line:
        second = await line.make(input="2", previous_response_id=first["id"])
    third = await desk.make(input="3", previous_response_id=second["id"])
    async with connected(desk.context) as line:
        await line.make(input="4", previous_response_id=third["id"], store=False)
    said = [message["content"] for message in desk.shown]
    assert said == ["1", "Hello", "2", "over", "3", "http", "4"]


async def test_a_response_after_one_that_is_not_stored_is_not_stored(desk: Desk) -> None:
    desk.say("one", "two")
    async with connected(desk.context) as line:
        first = await line.make(store=False)
        error = await line.refused(store=True, previous_response_id=first["id"])
        assert (error["param"], error["code"]) == ("store", "previous_response_not_stored")
        first = await line.make(store=False)
        second = await line.make(previous_response_id=first["id"])
        assert second["store"] is False
        assert second["previous_response_id"] == first["id"]


async def test_a_failed_continuation_is_the_last(desk: Desk) -> None:
    desk.say("one")
    async with connected(desk.context) as line:
        first = await line.make(store=False)
        result = {"type": "function_call_output", "call_id": "call_none", "output": "x"}
        error = await line.refused(store=False, previous_response_id=first["id"], input=[result])
        assert error["param"] == "input[0].call_id"
        error = await line.refused(store=False, previous_response_id=first["id"])
        assert error["code"] == "previous_response_not_found"
        assert text_of(await line.make(store=False)) == "one"


async def test_a_refusal_for_want_of_room_is_worth_another_try(desk: Desk) -> None:
    desk.say("one", "two")
    async with connected(desk.context) as line:
        first = await line.make(store=False)
        places = desk.context.engine.open_many(desk.context.engine.max_open)
        error = await line.refused(store=False, previous_response_id=first["id"])
        assert error["code"] == "overloaded"
        assert int(error["headers"]["retry-after"]) >= 1
        for place in places:
            place.close()
        await line.make(store=False, previous_response_id=first["id"])


async def test_a_warm_up_computes_the_prompt_and_says_nothing(desk: Desk) -> None:
    desk.say("dropped", "Hello")
    async with connected(desk.context) as line:
        await line.create(store=False, generate=False, input="Much to read", min_tokens=3)
        events = await line.rest()
        kinds = [event["type"] for event in events]
        assert kinds == ["response.created", "response.in_progress", "response.completed"]
        warm = events[-1]["response"]
        assert (warm["status"], warm["output"]) == ("completed", [])
        assert warm["usage"]["output_tokens"] == 0
        assert warm["usage"]["input_tokens"] > 0
        response = await line.make(store=False, previous_response_id=warm["id"], input="Now")
        assert [said["content"] for said in desk.shown] == ["Much to read", "Now"]
        assert text_of(response) == "Hello"


async def test_lanes_are_served_side_by_side(desk: Desk) -> None:
    desk.say("a", "b")
    async with connected(desk.context) as line:
        for lane in ("one", "two", "one"):
            await line.create(stream_id=lane)
        ended: list[str] = []
        while len(ended) < 3:
            event = await line.hear()
            OFFICIAL.validate_python(event)
            if event["type"] == "response.completed":
                ended.append(event["stream_id"])
        assert sorted(ended) == ["one", "one", "two"]
        error = await line.refused(stream_id="one", input=5)
        assert error["param"] == "input"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"type": "response.cancel"}, "type"),
        ({"type": None}, "type"),
        ({"type": ["response.create"]}, "type"),
        ({"stream_id": ""}, "stream_id"),
        ({"stream_id": "a b"}, "stream_id"),
        ({"stream_id": 'a"'}, "stream_id"),
        ({"stream_id": "x" * 257}, "stream_id"),
        ({"stream_id": 5}, "stream_id"),
        ({"generate": "no"}, "generate"),
        ({"generate": 0}, "generate"),
        ({"background": True}, "background"),
        ({"stream": False}, "stream"),
        ({"temperature": 9}, "temperature"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"input": None}, "input"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"type": "response.steer", "previous_response_id": "r", "input": 1}, "input"),
        ({"type": "response.steer"}, "previous_response_id"),
        ({"type": "response.steer", "previous_response_id": "r", "stream_id": "a"}, "stream_id"),
    ],
)
async def test_a_wrong_field_is_named(desk: Desk, fields: Any, param: str) -> None:
    async with connected(desk.context) as line:
        assert (await line.refused(**fields))["param"] == param
        desk.say("still here")
        assert text_of(await line.make(stream=True)) == "still here"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{}", "invalid_json"),
        ("", "invalid_json"),
        ("[1]", "invalid_json"),
        ('{"type": "response.create", "input": NaN}', "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("{" + " " * 3000 + "}", "payload_too_large"),
    ],
)
async def test_what_is_no_event_is_refused(desk: Desk, message: str | bytes, code: str) -> None:
    desk.say("still here")
    limit = 200_000 if code == "invalid_json" else 2000
    async with connected(desk.context, payload_limit=limit) as line:
        await line.say(message)
        (event,) = await line.rest()
        OFFICIAL.validate_python(event)
        assert event["error"]["code"] == code
        assert text_of(await line.make()) == "still here"


async def test_answers_cannot_be_steered(desk: Desk) -> None:
    async with connected(desk.context) as line:
        steer = {"type": "response.steer", "previous_response_id": "resp_1", "input": "Stop"}
        await line.say(json.dumps(steer))
        event = await line.hear()
        OFFICIAL.validate_python(event)
        assert event["type"] == "response.steer.failed"
        assert event["error"]["code"] == "steering_not_supported"
        assert event["steer"] == {"previous_response_id": "resp_1", "input": "Stop"}


async def test_whoever_leaves_ends_what_runs(desk: Desk) -> None:
    desk.say("word " * 3000)
    begun: set[str] = set()
    with desk.talk.speaker.silent(after=8):
        async with connected(desk.context) as line:
            for lane in ("a", "b"):
                await line.create(stream_id=lane)
            await line.create(stream_id="a")
            while len(begun) < 2:
                event = await line.hear()
                if event["type"] == "response.created":
                    begun.add(event["response"]["id"])
        for run in desk.runs:
            await run.settled()
    assert desk.context.engine.num_open == 0
    for response_id in begun:
        assert (await desk.get(f"/v1/responses/{response_id}"))["status"] == "cancelled"


async def test_what_may_be_resumed_goes_on_without_its_reader(desk: Desk) -> None:
    desk.say("word " * 100)
    with desk.talk.speaker.silent(after=8):
        async with connected(desk.context, headers=[("x-resumable", "true")]) as line:
            await line.create()
            response_id = (await line.hear())["response"]["id"]
    for run in desk.runs:
        await run.settled()
    stored = await desk.get(f"/v1/responses/{response_id}")
    assert text_of(stored) == "word " * 100
    with pytest.raises(Refusal) as refused:
        async with connected(desk.context, headers=[("x-resumable", "maybe")]):
            pass
    assert refused.value.response.status_code == 400


async def test_a_slow_reader_holds_up_nobody(desk: Desk) -> None:
    desk.say("word " * 50)
    async with connected(desk.context) as slow, connected(desk.context) as quick:
        slow.is_reading.clear()
        await slow.create()
        assert text_of(await quick.make()) == "word " * 50
        for run in desk.runs:
            await run.settled()
        assert desk.context.engine.num_open == 0


async def test_too_much_sent_ahead_is_refused(desk: Desk) -> None:
    desk.say("x")
    with_places = desk.context.engine
    async with connected(desk.context) as line:
        line.is_reading.clear()
        for _ in range(40):
            await line.create()
        line.is_reading.set()
        events = [event for _ in range(40) for event in await line.rest()]
    codes = [event["error"]["code"] for event in events if event["type"] == "error"]
    assert set(codes) == {"websocket_queue_full"}
    assert 4 <= len(codes) <= 8
    assert with_places.num_open == 0


async def test_lanes_have_a_limit(desk: Desk) -> None:
    places = desk.context.engine
    desk.say("word " * 20)
    async with connected(desk.context) as line:
        line.is_reading.clear()
        for number in range(33):
            await line.create(stream_id=f"lane{number}")
        line.is_reading.set()
        events = [event for _ in range(33) for event in await line.rest()]
    codes = {event["error"]["code"] for event in events if event["type"] == "error"}
    assert "websocket_stream_limit_reached" in codes
    assert places.num_open == 0


async def test_a_connection_that_asks_for_nothing_is_closed_in_the_end(desk: Desk) -> None:
    desk.say("late")
    desk.talk.speaker.allow(0)
    asked = json.dumps({"type": "response.create", "input": "x"})
    async with connected(desk.context, socket_idle_seconds=0.1, sent=[asked]) as busy:
        busy.is_reading.clear()
        desk.talk.speaker.allow(None)
        for _ in range(3):
            wrong = ["no JSON"]
            async with connected(desk.context, socket_idle_seconds=0.1, sent=wrong) as idle:
                assert (await idle.hear())["error"]["code"] == "invalid_json"
                assert await idle.closing() == (1000, "idle for 0.1 s")
        busy.is_reading.set()
        assert text_of((await busy.rest())[-1]["response"]) == "late"
        assert await busy.closing() == (1000, "idle for 0.1 s")


async def test_another_key_has_other_responses(desk: Desk) -> None:
    desk.say("mine")
    mine, other = (list(KEYS[name].items()) for name in ("one", "other"))
    async with connected(desk.context, headers=mine, **TWO_KEYS) as line:
        first = await line.make()
        async with connected(desk.context, headers=other, **TWO_KEYS) as stranger:
            error = await stranger.refused(previous_response_id=first["id"])
            assert error["code"] == "previous_response_not_found"
        await line.make(previous_response_id=first["id"])


async def test_a_server_that_keeps_nothing_goes_on_from_a_connection(desk: Desk) -> None:
    desk.say("one", "two")
    async with connected(replace(desk.context, store=None)) as line:
        first = await line.make(input="1")
        await line.make(input="2", previous_response_id=first["id"])
        assert [said["content"] for said in desk.shown] == ["1", "one", "2"]
        error = await line.refused(previous_response_id="resp_0")
        assert error["code"] == "previous_response_not_found"
        assert (await line.refused(store=True))["code"] == "store_off"


async def test_each_response_has_a_line_in_the_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "millstream.requests")
    desk.say("one")
    async with connected(desk.context, headers=[("x-request-id", "mine")]) as line:
        assert dict(line.accepted["headers"])[b"x-request-id"] == b"mine"
        response = await line.make(store=False)
        await line.refused(temperature=9)
        await line.refused(type="x")
    made, refused, unknown, connection = [record.getMessage() for record in caplog.records]
    assert made.startswith(f"WS /v1/responses 200 id=mine completion={response['id']} prompt=")
    assert "finish=stop" in made
    assert refused.startswith("WS /v1/responses 400 id=mine error=invalid_value param=temperature")
    assert unknown.startswith("WS /v1/responses 400 id=mine error=unknown_event param=type")
    assert connection.startswith("GET /v1/responses 101 id=mine time=")
