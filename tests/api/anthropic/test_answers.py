"""What messages say of an answer, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.intake.messages.request import parse_messages_request
from tests.api.anthropic.conftest import BODY, TOOLS, Messages
from tests.text.parsing.samples import choose

CALLS = (
    "<think>\nHm.\n</think>\n\nI look.\n"
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>'
)


async def test_a_text(messages: Messages) -> None:
    answer = await messages.both("Hello \u2028 \u00e9!")
    assert answer["content"] == [{"type": "text", "text": "Hello \u2028 \u00e9!"}]
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "fake")
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["id"].startswith("msg_")


async def test_thoughts_text_and_calls_are_blocks_in_their_order(messages: Messages) -> None:
    answer = await messages.both(CALLS, tools=TOOLS)
    thinking, text, now, weather = answer["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Hm.")
    assert thinking["signature"]
    assert text == {"type": "text", "text": "I look."}
    assert (now["type"], now["name"], now["input"]) == ("tool_use", "now", {})
    assert (weather["name"], weather["input"]) == ("get_weather", {"city": "Oslo", "days": 3})
    assert now["id"] != weather["id"]
    assert answer["stop_reason"] == "tool_use"
    assert answer["usage"]["output_tokens_details"]["thinking_tokens"] > 0


async def test_the_events_are_anthropics(messages: Messages) -> None:
    messages.say(CALLS)
    events = await messages.events(tools=TOOLS)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    start = events[0]["message"]
    assert (start["content"], start["stop_reason"]) == ([], None)
    order: list[Any] = []
    for event in events[1:-2]:
        key = (event["type"].removeprefix("content_block_"), event["index"])
        if event["type"] == "content_block_delta":
            key += (event["delta"]["type"],)
        if order[-1:] != [key]:
            order.append(key)
    assert order == [
        ("start", 0),
        ("delta", 0, "thinking_delta"),
        ("delta", 0, "signature_delta"),
        ("stop", 0),
        ("start", 1),
        ("delta", 1, "text_delta"),
        ("stop", 1),
        ("start", 2),
        ("delta", 2, "input_json_delta"),
        ("stop", 2),
        ("start", 3),
        ("delta", 3, "input_json_delta"),
        ("stop", 3),
    ]
    starts = [e["content_block"] for e in events if e["type"] == "content_block_start"]
    assert starts[0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert starts[1] == {"type": "text", "text": ""}
    assert starts[3]["input"] == {}
    usage = events[-2]["usage"]
    total = usage["input_tokens"] + usage["cache_read_input_tokens"]
    first = start["usage"]
    assert first["input_tokens"] + first["cache_read_input_tokens"] == total
    assert usage["output_tokens"] > 20


async def test_a_text_without_a_parser(messages: Messages) -> None:
    messages.parsers = choose("none", "none")
    answer = await messages.both("<think>\nHm.\n</think>\n\nYes.")
    assert [block["type"] for block in answer["content"]] == ["text"]


async def test_max_tokens_are_clamped_and_reached(messages: Messages) -> None:
    answer = await messages.both("one two three", max_tokens=3)
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"]["output_tokens"] == 3
    answer = await messages.both("one", max_tokens=10_000_000)
    assert answer["stop_reason"] == "end_turn"


@pytest.mark.parametrize("text", ["one two", "", "<think>\nHm.\n</think>\n\nYes."])
async def test_no_tokens_put_the_prompt_into_the_cache(messages: Messages, text: str) -> None:
    answer = await messages.both(text, max_tokens=0)
    assert (answer["content"], answer["stop_reason"]) == ([], "max_tokens")
    assert answer["usage"]["output_tokens"] == 0
    assert answer["usage"]["input_tokens"] > 0


async def test_streams_cannot_be_read_again(messages: Messages) -> None:
    async with messages.http() as client:
        asked = BODY | {"stream": True}
        headers = {"X-Resumable": "true"}
        refused = await client.post("/v1/messages", json=asked, headers=headers)
    assert refused.status_code == 400
    assert "X-Resumable" in refused.json()["error"]["message"]


async def test_a_call_that_is_cut_off_says_what_there_is(messages: Messages) -> None:
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"days": 3, "city": "Os'
    num_tokens = len(messages.tokenizer.encode(text).ids)
    answer = await messages.both(text, tools=TOOLS, max_tokens=num_tokens)
    assert answer["stop_reason"] == "max_tokens"
    assert answer["content"][0]["name"] == "get_weather"
    assert answer["content"][0]["input"] == {"days": 3}


async def test_a_stop_sequence_is_named(messages: Messages) -> None:
    answer = await messages.both("one two three", stop_sequences=["four", " two"])
    assert answer["content"] == [{"type": "text", "text": "one"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", " two")


async def test_one_call_at_most(messages: Messages) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    messages.say(CALLS)
    whole = await messages.whole(tools=TOOLS, tool_choice=choice)
    messages.say(CALLS)
    streamed = await messages.streamed(tools=TOOLS, tool_choice=choice)
    for answer in (whole, streamed):  # which differ in how many tokens came before it was ended
        assert [b["name"] for b in answer["content"] if b["type"] == "tool_use"] == ["now"]
        assert answer["stop_reason"] == "tool_use"


async def test_a_named_tool_that_is_called_is_tool_use(messages: Messages) -> None:
    text = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    answer = await messages.both(text, tools=TOOLS, tool_choice={"type": "tool", "name": "now"})
    assert answer["stop_reason"] == "tool_use"
    assert answer["content"][0]["name"] == "now"


async def test_white_space_alone_is_a_text_only_if_there_is_nothing_else(
    messages: Messages,
) -> None:
    answer = await messages.both(" \n ")
    assert answer["content"] == [{"type": "text", "text": " \n "}]


async def test_hidden_thoughts_come_back_in_their_signature(messages: Messages) -> None:
    thinking = {"type": "adaptive", "display": "omitted"}
    answer = await messages.both("<think>\nSecret.\n</think>\n\nYes.", thinking=thinking)
    hidden, text = answer["content"]
    assert hidden["thinking"] == ""
    assert "Secret" not in json.dumps(answer)
    assert text == {"type": "text", "text": "Yes."}
    history = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": "y"},
    ]
    chat = parse_messages_request(BODY | {"messages": history})
    assert chat.messages[1].reasoning_content == "Secret."


async def test_an_answer_in_a_form(messages: Messages) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "schema": schema}
    messages.parsers = choose("none", "none")
    answer = await messages.whole(output_config={"format": form})
    assert answer["content"][0]["type"] == "text"
    old = await messages.whole(output_format=form)
    assert old["content"][0]["type"] == "text"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_query_is_ignored(messages: Messages, stream: bool) -> None:
    response = await messages.post("/v1/messages?beta=true", stream=stream)
    assert response.status_code == 200
    assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_tokens_are_counted(messages: Messages) -> None:
    answer = await messages.whole(messages=[{"role": "user", "content": "hello"}])
    async with messages.http() as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        response = await client.post("/v1/messages/count_tokens?beta=true", json=body)
    usage = answer["usage"]
    counted = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert response.json() == {"input_tokens": counted}
