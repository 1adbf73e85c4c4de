"""POST /v1/responses and what is kept of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from openai.types.responses import Response as OfficialResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.api.openai.responses.conftest import KEYS, Desk, read_events

OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TWO_KEYS = {"api_key": ["first", "second"]}
TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "d",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    {
        "type": "namespace",
        "name": "agents",
        "description": "d",
        "tools": [{"type": "function", "name": "close"}],
    },
    {"type": "custom", "name": "apply_patch"},
    {"type": "web_search"},
]


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


async def test_a_whole_response_has_every_member(desk: Desk) -> None:
    desk.say("Hello")
    response = await desk.make(instructions="Be brief", metadata={"k": "v"})
    OfficialResponse.model_validate(response)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["instructions"] == "Be brief"
    assert response["metadata"] == {"k": "v"}
    assert response["completed_at"] >= response["created_at"]
    usage, num_tokens = response["usage"], len(desk.tokenizer.encode("Hello").ids)
    assert usage["output_tokens"] == num_tokens + 1  # with the one that ends it
    assert usage["total_tokens"] == usage["input_tokens"] + num_tokens + 1


async def test_a_stream_ends_with_the_response_that_the_whole_answer_is(desk: Desk) -> None:
    desk.say("<think>\nhm\n</think>\nSo " + call("get_weather", '{"city": "Rome"}'))
    whole = await desk.make(tools=TOOLS)
    events = await desk.events(tools=TOOLS)
    for event in events:
        OFFICIAL.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    last = events[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["reasoning", "message", "function_call"]
    different = {"id", "created_at", "completed_at", "output", "usage"}
    assert {k: v for k, v in last.items() if k not in different} == {
        k: v for k, v in whole.items() if k not in different
    }
    for one, other in zip(last["output"], whole["output"], strict=True):
        assert {**one, "id": 0, "call_id": 0} == {**other, "id": 0, "call_id": 0}


async def test_names_of_tools_come_back_as_they_were_offered(desk: Desk) -> None:
    desk.say(call("close", "{}") + call("apply_patch", '{"input": "*** Begin"}'))
    closed, patched = (await desk.make(tools=TOOLS))["output"]
    assert (closed["type"], closed["name"], closed["namespace"]) == (
        "function_call",
        "close",
        "agents",
    )
    assert (patched["type"], patched["name"], patched["input"]) == (
        "custom_tool_call",
        "apply_patch",
        "*** Begin",
    )


async def test_a_response_that_is_cut_is_incomplete(desk: Desk) -> None:
    desk.say("Hello")
    response = await desk.make(max_output_tokens=3)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None
    events = await desk.events(max_output_tokens=3)
    assert events[-1]["type"] == "response.incomplete"


async def test_what_is_stored_is_found_again_until_it_is_deleted(desk: Desk) -> None:
    desk.say("Hello")
    response = await desk.make(input=[{"role": "user", "content": "Hi"}])
    path = f"/v1/responses/{response['id']}"
    assert await desk.get(path) == response
    items = await desk.get(f"{path}/input_items")
    assert [item["content"] for item in items["data"]] == [[{"type": "input_text", "text": "Hi"}]]
    assert items["first_id"] == items["last_id"] == items["data"][0]["id"]
    deleted = await desk.ask("DELETE", path)
    assert deleted.json() == {"id": response["id"], "object": "response", "deleted": True}
    for method, where in (("GET", path), ("DELETE", path), ("POST", f"{path}/cancel")):
        assert (await desk.ask(method, where)).status_code == 404


async def test_what_is_not_to_be_stored_is_not(desk: Desk) -> None:
    desk.say("Hello")
    response = await desk.make(store=False)
    assert response["store"] is False
    assert (await desk.ask("GET", f"/v1/responses/{response['id']}")).status_code == 404
    assert await desk.refused(store=False, background=True) == "background"


async def test_a_response_follows_another_with_all_that_was_said(desk: Desk) -> None:
    desk.say("<think>\nhm\n</think>\nFirst", "Second", "Third")
    first = await desk.make(input="One", instructions="A")
    second = await desk.make(input="Two", previous_response_id=first["id"], instructions="B")
    await desk.make(input="Three", previous_response_id=second["id"])
    said = [(message["role"], message["content"]) for message in desk.shown]
    assert said == [
        ("user", "One"),
        ("assistant", "First"),
        ("user", "Two"),
        ("assistant", "Second"),
        ("user", "Three"),
    ]
    assert desk.shown[1]["reasoning_content"].strip() == "hm"
    assert second["previous_response_id"] == first["id"]


async def test_a_call_and_its_output_are_one_conversation(desk: Desk) -> None:
    desk.say(call("get_weather", '{"city": "Rome"}'), "Sunny")
    first = await desk.make(input="Weather?", tools=TOOLS)
    (made,) = first["output"]
    output = {"type": "function_call_output", "call_id": made["call_id"], "output": "20 degrees"}
    second = await desk.make(input=[output], previous_response_id=first["id"], tools=TOOLS)
    assert second["output"][0]["content"][0]["text"] == "Sunny"
    assert [message["role"] for message in desk.shown] == ["user", "assistant", "tool"]
    assert desk.shown[1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert desk.shown[2]["content"] == "20 degrees"


async def test_items_can_be_referred_to(desk: Desk) -> None:
    desk.say("First", "Second")
    first = await desk.make(input="One")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    question = {"role": "user", "content": "Two"}
    await desk.make(input=[reference, question], store=False)
    assert [message["content"] for message in desk.shown] == ["First", "Two"]
    unknown = {"type": "item_reference", "id": "msg_unknown"}
    assert await desk.refused(status=404, input=[question, unknown]) == "input[1].id"


async def test_a_previous_response_that_is_gone_is_not_found(desk: Desk) -> None:
    desk.say("First", "Second", "Third")
    first = await desk.make()
    second = await desk.make(previous_response_id=first["id"])
    await desk.ask("DELETE", f"/v1/responses/{first['id']}")
    for gone in (first["id"], second["id"], "resp_unknown"):
        response = await desk.post(previous_response_id=gone)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "previous_response_not_found"
        assert response.json()["error"]["param"] == "previous_response_id"


async def test_a_background_response_can_be_polled_and_its_events_read_from_anywhere(
    desk: Desk,
) -> None:
    desk.say("Hello")
    with desk.talk.speaker.silent():
        begun = await desk.make(background=True)
    assert begun["status"] in ("queued", "in_progress")
    path = f"/v1/responses/{begun['id']}"
    await asyncio.gather(*(run.settled() for run in desk.runs))
    assert (await desk.get(path))["status"] == "completed"
    everything = read_events(await desk.ask("GET", path, params={"stream": "true"}))
    assert [event["sequence_number"] for event in everything] == list(range(len(everything)))
    assert everything[1]["type"] == "response.queued"
    assert everything[2]["type"] == "response.in_progress"
    assert everything[-1]["response"] == await desk.get(path)
    for number in range(len(everything)):
        query = {"stream": "true", "starting_after": number}
        rest = read_events(await desk.ask("GET", path, params=query))
        assert rest == everything[number + 1 :]
        headers = {"Last-Event-ID": str(number)}
        by_header = await desk.ask("GET", path, params={"stream": "true"}, headers=headers)
        if rest:
            assert read_events(by_header) == rest
        else:
            assert (by_header.status_code, by_header.content) == (204, b"")
    beyond = {"stream": "true", "starting_after": len(everything)}
    refused = await desk.ask("GET", path, params=beyond)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "starting_after"


async def test_events_are_kept_only_if_somebody_may_come_back(desk: Desk) -> None:
    desk.say("Hello", "Hello")
    plain = await desk.make()
    path = f"/v1/responses/{plain['id']}"
    refused = await desk.ask("GET", path, params={"stream": "true"})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "events_not_kept"
    events = await desk.events(headers={"X-Resumable": "true"})
    path = f"/v1/responses/{events[0]['response']['id']}"
    again = read_events(await desk.ask("GET", path, params={"stream": "true"}))
    assert again == events


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"stream": "maybe"}, "stream"),
        ({"stream": "true", "starting_after": "x"}, "starting_after"),
        ({"stream": "true", "starting_after": "-1"}, "starting_after"),
        ({"starting_after": "1"}, "starting_after"),
    ],
)
async def test_a_query_that_says_nothing_sensible_is_refused(
    desk: Desk, query: dict[str, str], param: str
) -> None:
    desk.say("Hello")
    response = await desk.make(headers={"X-Resumable": "true"})
    refused = await desk.ask("GET", f"/v1/responses/{response['id']}", params=query)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


async def test_a_response_that_is_cancelled_keeps_what_was_said(desk: Desk) -> None:
    desk.say("Hello " * 3000)
    with desk.talk.speaker.silent(after=8):
        begun = await desk.make(background=True)
        path = f"/v1/responses/{begun['id']}"
        while not (await desk.get(path))["output"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        cancelled = (await desk.ask("POST", f"{path}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["output"][0]["status"] == "incomplete"
    assert await desk.get(path) == cancelled
    events = read_events(await desk.ask("GET", path, params={"stream": "true"}))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"] == cancelled
    again = await desk.ask("POST", f"{path}/cancel")
    assert again.json() == cancelled


async def test_what_is_somebody_elses_is_not_there(desk: Desk) -> None:
    desk.say("Hello")
    one, other = KEYS["one"], KEYS["other"]
    made = await desk.post(headers=one, settings=TWO_KEYS, background=True)
    path = f"/v1/responses/{made.json()['id']}"

    async def ask(method: str, where: str, headers: Any, **options: Any) -> int:
        response = await desk.ask(method, where, headers=headers, settings=TWO_KEYS, **options)
        return response.status_code

    await asyncio.gather(*(run.settled() for run in desk.runs))
    reads = [("GET", path), ("GET", f"{path}?stream=true"), ("GET", f"{path}/input_items")]
    for method, where in [*reads, ("POST", f"{path}/cancel"), ("DELETE", path)]:
        assert await ask(method, where, other) == 404
    follows = await desk.post(
        headers=other, settings=TWO_KEYS, previous_response_id=made.json()["id"]
    )
    assert follows.status_code == 404
    for method, where in reads:
        assert await ask(method, where, one) == 200
    assert await ask("DELETE", path, one) == 200


async def test_a_server_that_keeps_nothing_says_so(desk: Desk) -> None:
    desk.say("Hello")
    bare = Desk(desk.talk, replace(desk.context, store=None), desk.template)
    response = await bare.make()
    assert response["store"] is False
    for field in ({"store": True}, {"background": True}, {"previous_response_id": "resp_1"}):
        refused = await bare.post(**field)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "store_off"
        assert refused.json()["error"]["param"] == next(iter(field))
