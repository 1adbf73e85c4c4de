"""POST /v1/chats/{id}/continue: an answer that was cut goes on, in a version beside it."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.core.plan import Plan, StepOutput
from tests.api.chats.conftest import Visitor, text_of
from tests.api.chats.test_chats import hold
from tests.api.openai.responses.conftest import read_events

CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
TOOL = {"type": "function", "name": "now", "parameters": {"type": "object"}}


async def cut(visitor: Visitor, chat: str, answer: str, *, at: int = 4, **fields: Any) -> Any:
    """The message of an answer that was cut after so many tokens."""
    visitor.desk.say(answer)
    body = {"content": "Hi", "max_output_tokens": at} | fields
    made = await visitor.ask("POST", f"/{chat}/messages", json=body)
    assert made["status"] == "incomplete"
    return (await visitor.ask("GET", f"/{chat}"))["messages"][-1]


async def go_on(visitor: Visitor, chat: str, rest: str, status: int = 200, **body: Any) -> Any:
    visitor.desk.say(rest)
    return await visitor.ask("POST", f"/{chat}/continue", status, json=body)


def record(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the engine gets from now on, a step each."""
    speaker, prompts = visitor.desk.talk.speaker, list[str]()
    step = speaker.step

    def recorded(plan: Plan) -> StepOutput:
        for chunk in plan.chunks:
            ids = list(chunk.request.prompt)
            prompts.append(visitor.desk.tokenizer.decode(ids, skip_special_tokens=False))
        return step(plan)

    monkeypatch.setattr(speaker, "step", recorded)
    return prompts


async def test_a_cut_text_goes_on_in_one_whole_answer(visitor: Visitor) -> None:
    chat = await visitor.create()
    first = await cut(visitor, chat, "Hello there, you.")
    begun = text_of(first)
    assert len(begun) < 17
    made = await go_on(visitor, chat, "Hello there, you."[len(begun) :])
    (item,) = made["output"]
    assert (made["status"], item["status"]) == ("completed", "completed")
    assert item["content"][0]["text"] == "Hello there, you."
    assert visitor.desk.shown[-1] == {"role": "assistant", "content": begun}
    shown = await visitor.ask("GET", f"/{chat}")
    assert [text_of(one) for one in shown["messages"]] == ["Hi", "Hello there, you."]
    assert shown["messages"][-1]["versions"] == [first["id"], made["id"]]
    # What follows builds on the whole of it, and the cut one is found again.
    await visitor.say("More", chat=chat)
    said = [one["content"] for one in visitor.desk.shown]
    assert said == ["Hi", "Hello there, you.", "More"]
    back = await visitor.ask("POST", f"/{chat}", json={"leaf": first["id"]})
    assert text_of(back["messages"][-1]) == begun


async def test_its_stream_begins_with_what_was_said(visitor: Visitor) -> None:
    chat = await visitor.create()
    begun = "<think>Hm</think>Hello"
    num_tokens = len(visitor.desk.tokenizer.encode(begun).ids)
    await cut(visitor, chat, f"{begun} there, you", at=num_tokens)
    visitor.desk.say(" there")
    body = {"stream": True}
    response = await visitor.client.post(f"/v1/chats/{chat}/continue", json=body)
    assert response.status_code == 200, response.text
    events = read_events(response)
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    deltas: dict[str, list[str]] = {"reasoning_text": [], "output_text": []}
    for event in events:
        if event["type"].endswith(".delta"):
            deltas[event["type"].split(".")[1]].append(event["delta"])
    assert "".join(deltas["reasoning_text"]) == "Hm"
    said = "".join(deltas["output_text"])
    thought, text = events[-1]["response"]["output"]
    assert said == text["content"][0]["text"]
    assert said.startswith(deltas["output_text"][0])
    assert said.endswith(" there")
    assert thought["content"][0]["text"] == "Hm"
    again = await visitor.client.get(
        f"/v1/responses/{events[-1]['response']['id']}",
        params={"stream": "true", "starting_after": 1},
    )
    assert read_events(again) == events[2:]


async def test_a_cut_thought_goes_on(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = await visitor.create()
    first = await cut(visitor, chat, "<think>Let me see</think>Hello", at=12)
    (thought,) = first["items"]
    assert (thought["type"], thought["status"]) == ("reasoning", "incomplete")
    begun = thought["content"][0]["text"]
    prompts = record(visitor, monkeypatch)
    made = await go_on(visitor, chat, "!</think>Hello")
    assert prompts[0] == f"user:|Hi\n<think>\n{begun}"
    texts = [(item["type"], item["content"][0]["text"]) for item in made["output"]]
    assert texts == [("reasoning", f"{begun}!"), ("message", "Hello")]
    assert made["status"] == "completed"


async def test_what_was_cancelled_goes_on_and_so_does_what_was_continued(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await visitor.create()
    await cut(visitor, chat, "12345", at=2)
    again = await go_on(visitor, chat, "345", max_output_tokens=1)
    begun = again["output"][0]["content"][0]["text"]
    assert begun == "123"
    assert again["incomplete_details"] == {"reason": "max_output_tokens"}
    visitor.desk.say("45")
    goes_on = hold(visitor, monkeypatch)
    made = await visitor.ask("POST", f"/{chat}/continue", json={"background": True})
    assert (made["status"], made["output"][0]["content"][0]["text"]) == ("in_progress", "123")
    refused = await visitor.ask("POST", f"/{chat}/continue", 400, json={})
    assert refused["error"]["code"] == "response_in_progress"
    stopped = (await visitor.client.post(f"/v1/responses/{made['id']}/cancel")).json()
    goes_on.set()
    assert stopped["output"][0]["content"][0]["text"] == "123"
    whole = await go_on(visitor, chat, "45")
    assert whole["output"][0]["content"][0]["text"] == "12345"
    answer = (await visitor.ask("GET", f"/{chat}"))["messages"][-1]
    assert len(answer["versions"]) == 4


async def test_only_what_was_cut_in_its_text_goes_on(visitor: Visitor) -> None:
    chat = await visitor.create()
    refused = await go_on(visitor, chat, "x", 400)
    assert refused["error"]["param"] == "response"
    await visitor.say("Hi", "Hello", chat=chat)
    refused = await go_on(visitor, chat, "x", 400)
    assert refused["error"]["code"] == "response_not_cut"
    await go_on(visitor, chat, "x", 404, response="resp_nowhere")
    await cut(visitor, chat, "    Hello", at=2)
    refused = await go_on(visitor, chat, "x", 400)
    assert refused["error"]["code"] == "response_without_text"
    for more in ({"input": "x"}, {"store": True}, {"nonsense": 1}, {"temperature": "hot"}):
        refused = await go_on(visitor, chat, "x", 400, **more)
        assert refused["error"]["param"] == next(iter(more))
    assert len(await visitor.branch(chat)) == 4


async def test_calls_and_forms_are_made_in_one_go(visitor: Visitor) -> None:
    chat = await visitor.create(settings={"tools": [TOOL]})
    await cut(visitor, chat, CALL, at=len(visitor.desk.tokenizer.encode(CALL).ids) - 1)
    refused = await go_on(visitor, chat, "x", 400)
    assert refused["error"]["code"] == "response_with_calls"
    await cut(visitor, chat, "12345", at=2)
    form = {"format": {"type": "json_object"}}
    refused = await go_on(visitor, chat, "x", 400, text=form)
    assert refused["error"]["param"] == "text.format"
    for choice in ("required", {"type": "function", "name": "now"}):
        refused = await go_on(visitor, chat, "x", 400, tool_choice=choice)
        assert refused["error"]["param"] == "tool_choice"
    made = await go_on(visitor, chat, f"345{CALL}", text={"format": {"type": "text"}})
    assert [item["type"] for item in made["output"]] == ["message", "function_call"]
    assert made["output"][0]["content"][0]["text"] == "12345"
