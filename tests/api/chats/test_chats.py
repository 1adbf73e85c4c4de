"""/v1/chats: what a visitor says is remembered, can be edited, and is nobody else's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from millstream.api.openai.generate import queueing
from millstream.core.plan import Plan, StepOutput
from millstream.runtime.stream import TokenStream
from tests.api.chats.conftest import Visitor, text_of
from tests.api.openai.responses.conftest import KEYS, read_events

NewVisitor = Callable[..., Visitor]


async def test_a_chat_remembers_what_was_said(visitor: Visitor) -> None:
    await visitor.say("Hi", "Hello", chat="current")
    await visitor.say("Why?", "Because", chat="current")
    assert [one["content"] for one in visitor.desk.shown] == ["Hi", "Hello", "Why?"]
    assert await visitor.branch("current") == ["Hi", "Hello", "Why?", "Because"]
    (chat,) = (await visitor.ask("GET"))["data"]
    assert (chat["title"], chat["is_titled"]) == ("Hi", False)
    shown = await visitor.ask("GET", f"/{chat['id']}")
    assert [one["role"] for one in shown["messages"]] == ["user", "assistant"] * 2
    assert shown["leaf"] == shown["messages"][-1]["id"]
    assert shown["running"] == []
    assert shown["messages"][1]["usage"]["output_tokens"] == 5


async def test_a_visitor_sees_no_chat_of_another(new_visitor: NewVisitor) -> None:
    one, other = new_visitor(), new_visitor()
    response = await one.say("Hi", chat="current")
    (chat,) = await one.listed()
    assert await other.listed() == []
    assert await other.branch("current") == []
    for method, path, body in [
        ("GET", "", None),
        ("GET", "/messages", None),
        ("POST", "", {"title": "mine"}),
        ("POST", "/messages", {"content": "x"}),
        ("POST", "/regenerate", {}),
        ("POST", "/clear", None),
        ("DELETE", "", None),
    ]:
        refused = await other.ask(method, f"/{chat}{path}", 404, json=body)
        assert refused["error"]["code"] == "chat_not_found"
    body = {"content": "x", "parent": response}
    refused = await other.ask("POST", "/current/messages", 404, json=body)
    assert refused["error"]["param"] == "parent"
    assert await one.branch("current") == ["Hi", "ok"]


async def test_with_keys_a_key_is_the_visitor(new_visitor: NewVisitor) -> None:
    one, again, other = (
        new_visitor(KEYS[name], api_key=["first", "second"]) for name in ("one", "one", "other")
    )
    await one.say("Hi", chat="current")
    assert await again.branch("current") == ["Hi", "ok"]
    assert await other.listed() == []
    assert not one.client.cookies


async def test_a_script_needs_no_cookie_when_it_names_a_chat(new_visitor: NewVisitor) -> None:
    def script() -> Visitor:
        visitor = new_visitor()
        visitor.client.cookies = None  # type: ignore[assignment]
        return visitor

    chat = await script().create(title="Mine")
    await script().say("Hi", chat=chat)
    assert await script().branch(chat) == ["Hi", "ok"]
    # Who has no cookie shares no current chat.
    await script().say("x", chat="current")
    assert await script().branch("current") == []
    assert await script().listed() == []
    # A jar that was empty then is no hindrance now.
    late = new_visitor()
    chat = await late.create()
    assert await late.listed() == []
    response = await late.say("Hi", chat=chat)
    assert (await late.client.get(f"/v1/responses/{response}")).status_code == 200
    assert await late.branch(chat) == ["Hi", "ok"]
    assert (await late.client.delete(f"/v1/responses/{response}")).status_code == 200


async def test_regenerated_answers_are_versions_of_one_question(visitor: Visitor) -> None:
    chat = await visitor.create()
    first = await visitor.say("Hi", "one", chat=chat)
    second = await visitor.again(chat, "two")
    shown = await visitor.ask("GET", f"/{chat}")
    assert [text_of(one) for one in shown["messages"]] == ["Hi", "two"]
    question, answer = shown["messages"]
    assert answer["versions"] == [first, second]
    assert question["versions"] == [second]
    assert [one["content"] for one in visitor.desk.shown] == ["Hi"]
    third = await visitor.say("More", "three", chat=chat)
    fourth = await visitor.again(chat, "four", response=first)
    assert await visitor.branch(chat) == ["Hi", "four"]
    back = await visitor.ask("POST", f"/{chat}", json={"leaf": second})
    assert back["leaf"] == third
    assert back["messages"][1]["versions"] == [first, second, fourth]


async def test_an_edited_question_is_a_branch_beside_the_old_one(visitor: Visitor) -> None:
    chat = await visitor.create()
    first = await visitor.say("Hi", "one", chat=chat)
    old = await visitor.say("Old?", "two", chat=chat)
    new = await visitor.say("New?", "three", chat=chat, parent=first)
    shown = await visitor.ask("GET", f"/{chat}")
    assert [text_of(one) for one in shown["messages"]] == ["Hi", "one", "New?", "three"]
    assert [one["versions"] for one in shown["messages"][2:]] == [[old, new], [new]]
    assert [one["content"] for one in visitor.desk.shown] == ["Hi", "one", "New?"]
    anew = await visitor.say("Hello", "four", chat=chat, parent=None)
    shown = await visitor.ask("GET", f"/{chat}")
    assert [text_of(one) for one in shown["messages"]] == ["Hello", "four"]
    assert shown["messages"][0]["versions"] == [first, anew]
    await visitor.ask("POST", f"/{chat}", json={"leaf": old})
    assert await visitor.branch(chat) == ["Hi", "one", "Old?", "two"]


async def test_settings_hold_for_every_message_that_says_nothing_else(visitor: Visitor) -> None:
    settings = {"instructions": "Be brief.", "temperature": 0.25, "max_output_tokens": 2}
    chat = await visitor.create(title="Short", settings=settings)
    visitor.desk.say("Hello there")
    made = await visitor.ask("POST", f"/{chat}/messages", json={"content": "Hi", "top_p": 0.5})
    assert (made["status"], made["temperature"], made["top_p"]) == ("incomplete", 0.25, 0.5)
    assert visitor.desk.shown[0]["content"] == "Be brief."
    body = {"content": "Hi", "max_output_tokens": 50, "temperature": 0.75}
    made = await visitor.ask("POST", f"/{chat}/messages", json=body)
    assert (made["status"], made["temperature"]) == ("completed", 0.75)
    changed = await visitor.ask("POST", f"/{chat}", json={"settings": {}, "title": None})
    assert changed["settings"] == {}
    assert changed["title"] == "Hi"
    made = await visitor.ask("POST", f"/{chat}/messages", json={"content": "Hi"})
    assert made["status"] == "completed"
    assert visitor.desk.shown[0]["content"] == "Hi"


async def test_a_tool_is_called_and_its_result_sent(visitor: Visitor) -> None:
    tool = {"type": "function", "name": "now", "parameters": {"type": "object"}}
    chat = await visitor.create(settings={"tools": [tool]})
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    await visitor.say("What time?", call, chat=chat)
    shown = await visitor.ask("GET", f"/{chat}")
    item = shown["messages"][1]["items"][0]
    assert (item["type"], item["name"]) == ("function_call", "now")
    result = {"type": "function_call_output", "call_id": item["call_id"], "output": "noon"}
    await visitor.say(None, "It is noon", chat=chat, input=[result])
    shown = await visitor.ask("GET", f"/{chat}")
    assert [one["role"] for one in shown["messages"]] == ["user", "assistant", "tool", "assistant"]
    await visitor.again(chat, "Noon")
    assert (await visitor.branch(chat))[-1] == "Noon"


def hold(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, *, num_steps: int = 0
) -> threading.Event:
    """Lets the engine's steps wait for this event, after so many."""
    speaker, goes_on = visitor.desk.talk.speaker, threading.Event()
    step, numbers = speaker.step, count()

    def held(plan: Plan) -> StepOutput:
        if next(numbers) >= num_steps:
            goes_on.wait(20)
        return step(plan)

    monkeypatch.setattr(speaker, "step", held)
    return goes_on


async def test_an_answer_goes_on_and_is_found_by_who_reloads(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await visitor.create()
    body = {"content": "Hi", "background": True}
    visitor.desk.say("word " * 20, "other")
    goes_on = hold(visitor, monkeypatch)
    made = await visitor.ask("POST", f"/{chat}/messages", json=body)
    shown = await visitor.ask("GET", f"/{chat}")
    assert shown["running"] == [shown["leaf"]] == [made["id"]]
    assert shown["messages"][1]["status"] in ("queued", "in_progress")
    # A second tab sends meanwhile: a version of the question, for nothing is lost.
    body = {"content": "Meanwhile", "background": True}
    other = (await visitor.ask("POST", f"/{chat}/messages", json=body))["id"]
    goes_on.set()
    response = await visitor.client.get(
        f"/v1/responses/{made['id']}", params={"stream": "true", "starting_after": 1}
    )
    events = read_events(response)
    assert events[0]["sequence_number"] == 2
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "word " * 20
    shown = await visitor.ask("GET", f"/{chat}")
    assert shown["messages"][0]["versions"] == [made["id"], other]


async def test_a_stream_has_the_events_of_a_response(visitor: Visitor) -> None:
    visitor.desk.say("Hello")
    response = await visitor.client.post(
        "/v1/chats/current/messages", json={"content": "Hi", "stream": True}
    )
    events = read_events(response)
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"


async def test_who_waits_is_told_at_which_place(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await visitor.create()
    visitor.desk.say("ok")
    goes_on = hold(visitor, monkeypatch)
    streams = visitor.desk.context.engine.streams
    look, looks = streams.queue_position, []

    def looked(stream: TokenStream) -> int | None:
        looks.append(look(stream))
        if len(looks) == 5:
            goes_on.set()
        return looks[-1]

    monkeypatch.setattr(streams, "queue_position", looked)
    monkeypatch.setattr(queueing, "_LOOK_SECONDS", 0.001)
    body = {"content": "first", "background": True}
    await visitor.ask("POST", f"/{chat}/messages", json=body)
    response = await visitor.client.post(
        f"/v1/chats/{chat}/messages", json={"content": "x", "stream": True}
    )
    frames = response.text.split("\n\n")
    told = [frame for frame in frames if "queue.position" in frame]
    expected = 'event: queue.position\ndata: {"type":"queue.position","position":%d}'
    assert told in ([expected % 2], [expected % 2, expected % 1])  # as fast as it goes on then
    assert "event: response.completed" in frames[-2]
    assert looks[-1] is None


async def test_who_comes_back_while_it_waits_is_told_its_place(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await visitor.create()
    visitor.desk.say("ok")
    goes_on = hold(visitor, monkeypatch)
    monkeypatch.setattr(queueing, "_LOOK_SECONDS", 0.001)
    sent = [
        await visitor.ask("POST", f"/{chat}/messages", json={"content": "x", "background": True})
        for _ in range(2)
    ]
    run = visitor.desk.runs.find(sent[1]["id"], owner=next(iter(visitor.desk.runs)).owner)
    assert run is not None
    look, looks = run.position, list[int | None]()

    def looked() -> int | None:
        looks.append(look())
        if len(looks) == 5:
            goes_on.set()
        return looks[-1]

    monkeypatch.setattr(run, "position", looked)
    where = {"stream": "true", "starting_after": "1"}
    response = await visitor.client.get(f"/v1/responses/{sent[1]['id']}", params=where)
    frames = response.text.split("\n\n")
    assert 'data: {"type":"queue.position","position":' in frames[0]
    assert "event: response.completed" in frames[-2]


async def test_what_was_said_is_found_and_cleared(visitor: Visitor) -> None:
    first = await visitor.create(title="Flüsse")
    second = await visitor.create()
    await visitor.say("Wo ist die Ötz?", "In Tirol", chat=second)
    assert await visitor.listed() == [second, first]
    assert await visitor.listed(query="FLÜSSE") == [first]
    assert await visitor.listed(query="tirol ötz") == [second]
    assert await visitor.listed(query="\0%") == []
    assert await visitor.listed(limit=1, after=second) == [first]
    cleared = await visitor.ask("POST", f"/{second}/clear")
    assert (cleared["messages"], cleared["title"]) == ([], None)
    assert await visitor.listed(query="tirol") == []
    assert (await visitor.ask("DELETE", f"/{second}"))["deleted"] is True
    await visitor.ask("GET", f"/{second}", 404)
    assert await visitor.listed() == [first]


async def test_a_chat_that_is_deleted_takes_its_running_answers_along(visitor: Visitor) -> None:
    chat = await visitor.create()
    visitor.desk.say("word " * 500)
    body = {"content": "Hi", "background": True}
    with visitor.desk.talk.speaker.silent(after=8):
        made = await visitor.ask("POST", f"/{chat}/messages", json=body)
        await visitor.ask("DELETE", f"/{chat}")
        assert len(visitor.desk.runs) == 0
    assert (await visitor.client.get(f"/v1/responses/{made['id']}")).status_code == 404


async def test_the_history_is_read_a_page_at_a_time(visitor: Visitor) -> None:
    chat = await visitor.create()
    for number in range(3):
        await visitor.say(f"q{number}", f"a{number}", chat=chat)
    query: dict[str, Any] = {"order": "asc", "limit": 4}
    page = await visitor.ask("GET", f"/{chat}/messages", params=query)
    assert [text_of(one) for one in page["data"]] == ["q0", "a0", "q1", "a1"]
    assert page["has_more"] is True
    page = await visitor.ask("GET", f"/{chat}/messages", params=query | {"after": page["last_id"]})
    assert [text_of(one) for one in page["data"]] == ["q2", "a2"]
    page = await visitor.ask("GET", f"/{chat}/messages", params={"limit": 1})
    assert [text_of(one) for one in page["data"]] == ["a2"]
    await visitor.ask("GET", f"/{chat}/messages", 400, params={"after": "x"})


async def test_two_who_send_at_once_make_versions(visitor: Visitor) -> None:
    chat = await visitor.create()
    first = await visitor.say("Hi", chat=chat)
    visitor.desk.say("one", "two")
    sent = [
        visitor.ask("POST", f"/{chat}/messages", json={"content": content, "parent": first})
        for content in ("left", "right")
    ]
    made = await asyncio.gather(*sent)
    shown = await visitor.ask("GET", f"/{chat}")
    assert set(shown["messages"][2]["versions"]) == {one["id"] for one in made}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "content"),
        ({"content": 3}, "content"),
        ({"content": [{"type": "input_text"}]}, "content[0].text"),
        ({"content": "x", "input": "y"}, "input"),
        ({"input": [{"type": "x"}]}, "input[0].type"),
        ({"content": "x", "parent": 3}, "parent"),
        ({"content": "x", "temperature": "hot"}, "temperature"),
        ({"content": "x", "min_tokens": 9}, "min_tokens"),
        ({"content": "x", "conversation": "c"}, "conversation"),
        ({"content": "x", "store": True}, "store"),
        ({"content": "x", "previous_response_id": "r"}, "previous_response_id"),
        ({"content": "x", "nonsense": 1}, "nonsense"),
    ],
)
async def test_a_wrong_message_is_refused_by_the_name_of_its_field(
    visitor: Visitor, body: dict[str, Any], param: str
) -> None:
    chat = await visitor.create(settings={"max_output_tokens": 8})
    refused = await visitor.ask("POST", f"/{chat}/messages", 400, json=body)
    assert refused["error"]["param"] == param
    assert refused["error"]["message"].startswith(param)
    assert await visitor.branch(chat) == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"title": 3}, "title"),
        ({"title": "a\nb"}, "title"),
        ({"title": "x" * 501}, "title"),
        ({"settings": {"temperature": "hot"}}, "settings.temperature"),
        ({"settings": {"stream": True}}, "settings.stream"),
        ({"settings": {"nonsense": 1}}, "settings.nonsense"),
        ({"settings": []}, "settings"),
        ({"leaf": 3}, "leaf"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_wrong_change_is_refused_by_the_name_of_its_field(
    visitor: Visitor, body: dict[str, Any], param: str
) -> None:
    refused = await visitor.ask("POST", "/current", 400, json=body)
    assert refused["error"]["param"] == param
    if "leaf" not in body:
        refused = await visitor.ask("POST", "", 400, json=body)
        assert refused["error"]["param"] == param


async def test_what_is_not_there_is_not_found(visitor: Visitor) -> None:
    chat = await visitor.create()
    for path, body, param in [
        ("", {"leaf": "resp_x"}, "leaf"),
        ("/messages", {"content": "x", "parent": "resp_x"}, "parent"),
        ("/regenerate", {"response": "resp_x"}, "response"),
    ]:
        refused = await visitor.ask("POST", f"/{chat}{path}", 404, json=body)
        assert refused["error"]["param"] == param
    refused = await visitor.ask("POST", f"/{chat}/regenerate", 400, json={})
    assert refused["error"]["param"] == "response"
    made = await visitor.say("Hi", chat=chat)
    other = await visitor.create()
    refused = await visitor.ask(
        "POST", f"/{other}/messages", 404, json={"content": "x", "parent": made}
    )
    assert refused["error"]["param"] == "parent"
    for query in ({"order": "asc"}, {"limit": 0}, {"after": "x"}, {"query": "x" * 201}):
        refused = await visitor.ask("GET", "", 400, params=query)
        assert refused["error"]["param"] == next(iter(query))
