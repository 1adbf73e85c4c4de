"""Chats as documents: all of the tree goes out, and comes in again as a chat of its bringer's."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.api.chats.conftest import Visitor, text_of
from tests.api.chats.test_chats import hold

NewVisitor = Callable[..., Visitor]

TOOL = {"type": "function", "name": "now", "parameters": {"type": "object"}}
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


async def export(visitor: Visitor, chat: str) -> Any:
    return await visitor.ask("GET", f"/{chat}/export")


async def bring(visitor: Visitor, document: Any, status: int = 200) -> Any:
    return await visitor.ask("POST", "/import", status, json=document)


async def grown(visitor: Visitor) -> str:
    """A chat with versions of questions and answers, thoughts, a call and its result."""
    chat = await visitor.create(title="Trees", settings={"tools": [TOOL], "temperature": 0.5})
    first = await visitor.say("What time?", f"<think>Hm</think>{CALL}", chat=chat)
    shown = await visitor.ask("GET", f"/{chat}")
    call = shown["messages"][-1]["items"][-1]["call_id"]
    result = {"type": "function_call_output", "call_id": call, "output": "noon"}
    await visitor.say(None, "It is noon", chat=chat, input=[result])
    await visitor.again(chat, "Noon")
    await visitor.say("Thanks", "You are welcome", chat=chat)
    await visitor.say("Edited", "Other", chat=chat, parent=first, input=None)
    await visitor.ask("POST", f"/{chat}", json={"leaf": first})
    return chat


def shape(document: Any) -> Any:
    """A document without what is new in a copy, ids by the order of their first mention."""
    text = json.dumps({**document, "exported_at": 0, "updated_at": 0})
    ids: list[str] = []
    for turn in document["responses"]:
        for one in [turn["response"], *turn["input"], *turn["response"]["output"]]:
            if one["id"] not in ids:
                ids.append(one["id"])
    for number, one in enumerate(ids):
        text = text.replace(one, f"id {number}")
    return json.loads(text)


async def all_ways(visitor: Visitor, chat: str, versions: list[str]) -> list[list[str]]:
    """What the branches say that end below these responses."""
    found = []
    for leaf in versions:
        await visitor.ask("POST", f"/{chat}", json={"leaf": leaf})
        found.append(await visitor.branch(chat))
    return found


async def test_a_chat_goes_out_and_comes_back_whole(new_visitor: NewVisitor) -> None:
    one, other = new_visitor(), new_visitor()
    await one.listed()
    await other.listed()
    chat = await grown(one)
    document = await export(one, chat)
    copy = await bring(other, document)
    assert await other.listed() == [copy["id"]]
    assert await one.listed() == [chat]
    again = await export(other, copy["id"])
    assert shape(again) == shape(document)
    old_ids = {turn["response"]["id"] for turn in document["responses"]}
    new_ids = {turn["response"]["id"] for turn in again["responses"]}
    assert not old_ids & new_ids
    shown = await one.ask("GET", f"/{chat}")
    assert copy["is_titled"] is True
    assert [text_of(m) for m in copy["messages"]] == [text_of(m) for m in shown["messages"]]
    assert [m["timing"] for m in copy["messages"]] == [m["timing"] for m in shown["messages"]]
    assert [len(m["versions"]) for m in copy["messages"]] == [
        len(m["versions"]) for m in shown["messages"]
    ]
    pairs = zip(document["responses"], again["responses"], strict=True)
    leaves = [(old["response"]["id"], new["response"]["id"]) for old, new in pairs]
    ways = await all_ways(one, chat, [old for old, _ in leaves])
    assert await all_ways(other, copy["id"], [new for _, new in leaves]) == ways
    assert len({tuple(way) for way in ways}) == 3
    # It is a chat like any other: it is found, goes on, and knows what was said.
    assert await other.listed(query="welcome") == [copy["id"]]
    await other.say("More", "Yes", chat=copy["id"])
    assert other.desk.shown[0]["content"] == "What time?"
    made = (await other.client.get(f"/v1/responses/{leaves[0][1]}")).json()
    assert made["output"][0]["content"][0]["text"] == "Hm"
    assert (await other.client.get(f"/v1/responses/{leaves[0][0]}")).status_code == 404


async def test_a_running_answer_goes_out_with_what_was_said(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await visitor.create()
    visitor.desk.say("word " * 400)
    goes_on = hold(visitor, monkeypatch, num_steps=8)
    body = {"content": "Hi", "background": True}
    made = await visitor.ask("POST", f"/{chat}/messages", json=body)
    while not (await visitor.ask("GET", f"/{chat}"))["messages"][-1]["items"]:
        pass
    document = await export(visitor, chat)
    turn = document["responses"][-1]
    assert turn["response"]["status"] == "in_progress"
    said = turn["response"]["output"][0]["content"][0]["text"]
    assert said
    assert "word ".startswith(said[:5])
    assert turn["timing"]["total_seconds"] > 0
    copy = await bring(visitor, document)
    answer = copy["messages"][-1]
    assert (answer["status"], text_of(answer), copy["running"]) == ("cancelled", said, [])
    goes_on.set()
    await visitor.client.post(f"/v1/responses/{made['id']}/cancel")
    visitor.desk.say("end")
    whole = await visitor.ask("POST", f"/{copy['id']}/continue", json={})
    assert whole["output"][0]["content"][0]["text"] == f"{said}end"


async def test_an_empty_chat_and_one_that_lost_a_response_travel_as_well(visitor: Visitor) -> None:
    empty = await export(visitor, await visitor.create())
    assert empty["responses"] == []
    assert (await bring(visitor, empty))["messages"] == []
    chat = await visitor.create()
    first = await visitor.say("one", "1", chat=chat)
    await visitor.say("two", "2", chat=chat)
    await visitor.client.delete(f"/v1/responses/{first}")
    copy = await bring(visitor, await export(visitor, chat))
    assert [text_of(one) for one in copy["messages"]] == ["two", "2"]


def changed(document: Any, path: str, value: Any) -> Any:
    """The document with another value at a place like `responses.0.input`."""
    document, at = deepcopy(document), None
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = document
    for part in way:
        at = at[part]
    at[last] = value
    return document


R = "responses.0.response"


@pytest.mark.parametrize(
    ("path", "value", "param"),
    [
        ("object", "chat", "object"),
        ("version", 2, "version"),
        ("nonsense", 1, "nonsense"),
        ("created_at", -1, "created_at"),
        ("created_at", 2**70, "created_at"),
        ("title", "a\nb", "title"),
        ("settings", {"temperature": "hot"}, "settings.temperature"),
        ("settings", {"stream": True}, "settings.stream"),
        ("leaf", "resp_nowhere", "leaf"),
        ("leaf", None, "leaf"),
        ("responses", {}, "responses"),
        ("responses.0.nonsense", 1, "responses[0].nonsense"),
        ("responses.0.follows", "resp_nowhere", "responses[0].follows"),
        ("responses.0.input", "Hi", "responses[0].input"),
        ("responses.0.input.0.type", "item_reference", "responses[0].input[0].role"),
        ("responses.0.input.0.role", "god", "responses[0].input[0].role"),
        (
            "responses.0.input.0",
            {"type": "item_reference", "id": "x"},
            "responses[0].input[0].type",
        ),
        ("responses.0.timing", {}, "responses[0].timing.queue_seconds"),
        ("responses.0.timing.total_seconds", -1, "responses[0].timing.total_seconds"),
        (f"{R}.status", "done", "responses[0].response.status"),
        (f"{R}.id", "", "responses[0].response.id"),
        (f"{R}.created_at", -5, "responses[0].response.created_at"),
        (f"{R}.created_at", 2**63, "responses[0].response.created_at"),
        (f"{R}.conversation", {"id": "conv_1"}, "responses[0].response.conversation"),
        (f"{R}.usage.input_tokens", "9", "responses[0].response.usage.input_tokens"),
        (f"{R}.usage.total_tokens", -9, "responses[0].response.usage.total_tokens"),
        (f"{R}.nonsense", 1, "responses[0].response.nonsense"),
        (f"{R}.output.0.content.0.text", 5, "responses[0].response.output[0].content[0].text"),
        (f"{R}.output.0.nonsense", 5, "responses[0].response.output[0].nonsense"),
        (f"{R}.output.0.type", "image", "responses[0].response.output[0]"),
    ],
)
async def test_a_wrong_document_is_refused_by_the_name_of_its_field(
    visitor: Visitor, path: str, value: Any, param: str
) -> None:
    chat = await visitor.create()
    await visitor.say("Hi", "Hello", chat=chat)
    document = await export(visitor, chat)
    refused = await bring(visitor, changed(document, path, value), 400)
    assert refused["error"]["param"] == param, refused
    assert refused["error"]["message"].startswith(param)
    assert await visitor.listed() == [chat]


async def test_each_response_is_there_once_and_after_what_it_follows(visitor: Visitor) -> None:
    chat = await visitor.create()
    await visitor.say("one", "1", chat=chat)
    await visitor.say("two", "2", chat=chat)
    document = await export(visitor, chat)
    first, second = document["responses"]
    refused = await bring(visitor, {**document, "responses": [second, first]}, 400)
    assert refused["error"]["param"] == "responses[0].follows"
    refused = await bring(visitor, {**document, "responses": [first, first]}, 400)
    assert refused["error"]["param"] == "responses[1].response.id"
    many = {**document, "responses": [first] * 1001}
    assert (await bring(visitor, many, 400))["error"]["param"] == "responses"
    circle = changed(document, "responses.0.follows", second["response"]["id"])
    assert (await bring(visitor, circle, 400))["error"]["param"] == "responses[0].follows"


async def test_a_document_may_be_ten_times_as_long_as_a_body(new_visitor: NewVisitor) -> None:
    visitor = new_visitor(payload_limit=2_000)
    chat = await visitor.create()
    for number in range(3):
        await visitor.say(f"q{number}", "a", chat=chat)
    document = await export(visitor, chat)
    assert 2_000 < len(json.dumps(document)) < 20_000
    await bring(visitor, document)
    document["responses"][0]["input"][0]["content"][0]["text"] = "x" * 20_000
    refused = await bring(visitor, document, 413)
    assert refused["error"]["code"] == "payload_too_large"


async def test_what_is_somebody_elses_does_not_go_out(new_visitor: NewVisitor) -> None:
    one, other = new_visitor(), new_visitor()
    await one.listed()
    chat = await one.create()
    await one.say("Hi", chat=chat)
    await other.listed()
    refused = await other.ask("GET", f"/{chat}/export", 404)
    assert refused["error"]["code"] == "chat_not_found"
