"""The body of POST /v1/messages, and the chat request that it comes to."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.intake.messages.request import (
    MessagesChat,
    parse_count_request,
    parse_messages_request,
)

TOOL = {"name": "Bash", "description": "Runs.", "input_schema": {"type": "object"}}
USER = {"role": "user", "content": "Hi"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "é", "n": 1}}


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "any", "max_tokens": 100, "messages": list(messages) or [USER], **fields}


def read(*messages: Any, **fields: Any) -> MessagesChat:
    return parse_messages_request(body(*messages, **fields))


def shown(chat: MessagesChat) -> list[dict[str, Any]]:
    return [message.to_template() for message in chat.messages]


def refused(*messages: Any, **fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as refusal:
        read(*messages, **fields)
    assert str(refusal.value.param) in refusal.value.message
    return refusal.value.param


def said(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def heard(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str, **keys: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **keys}


def result(content: Any, **keys: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **keys}


CLAUDE_CODE: dict[str, Any] = {
    "system": [
        text("x-anthropic-billing-header: cc_version=2.1.197.c40; cc_entrypoint=sdk-cli;"),
        text("You are an agent.", cache_control={"type": "ephemeral"}),
        text("\nYou help.", cache_control={"type": "ephemeral"}),
    ],
    "tools": [TOOL],
    "metadata": {"user_id": '{"device_id":"d"}'},
    "max_tokens": 32000,
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "stream": True,
}
FIRST = [
    heard(text("<reminder>"), text("Run echo", cache_control={"type": "ephemeral"})),
    {"role": "system", "content": "Available agents"},
]


def test_both_turns_of_claude_code() -> None:
    first = read(*FIRST, **CLAUDE_CODE)
    answer = said({"type": "thinking", "thinking": "Hm.", "signature": "sig"}, text("I run."), CALL)
    unmarked = [heard(text("<reminder>"), text("Run echo")), FIRST[1]]
    marked = result("hello", is_error=False, cache_control={"type": "ephemeral"})
    second = read(*unmarked, answer, heard(marked), **CLAUDE_CODE)
    assert shown(second)[: len(first.messages)] == shown(first)
    assert shown(first)[0]["content"] == [text("You are an agent."), text("\nYou help.")]
    assert [message["role"] for message in shown(first)] == ["system", "user", "system"]
    called, told = shown(second)[3:]
    assert called["reasoning_content"] == "Hm."
    assert called["content"] == "I run."
    (call,) = called["tool_calls"]
    assert call["id"] == "toolu_1"
    assert call["function"] == {"name": "Bash", "arguments": '{"command": "é", "n": 1}'}
    assert told == {"role": "tool", "content": "hello", "tool_call_id": "toolu_1"}
    assert (first.stream, first.wanted_tokens, first.wanted_effort) == (True, 32000, "high")
    assert first.offered_tools[0]["function"]["parameters"] == {"type": "object"}


def test_results_and_texts_keep_their_order() -> None:
    chat = read(USER, said(CALL), heard(result([text("a"), text("b")]), text("Go on")))
    assert [message["role"] for message in shown(chat)[2:]] == ["tool", "user"]
    assert shown(chat)[2]["content"] == [text("a"), text("b")]
    assert shown(chat)[3]["content"] == "Go on"


@pytest.mark.parametrize(
    ("content", "told"), [("no", "Error: no"), ([text("no")], "Error: no"), (None, "Error: ")]
)
def test_an_error_is_told_as_one(content: Any, told: str) -> None:
    chat = read(USER, said(CALL), heard(result(content, is_error=True)))
    assert shown(chat)[2]["content"] == told


def test_messages_of_the_assistant_in_a_row_are_one() -> None:
    chat = read(USER, said(text("a")), said(text("b"), CALL), heard(result("r")))
    assert [message["role"] for message in shown(chat)] == ["user", "assistant", "tool"]
    assert shown(chat)[1]["content"] == "ab"


def test_a_text_of_the_assistant_at_the_end_is_continued() -> None:
    assert read(USER, {"role": "assistant", "content": "The best is ("}).is_continued
    assert not read(USER, said(CALL)).is_continued


def test_thoughts_of_other_makers_are_left_out() -> None:
    chat = read(USER, said({"type": "redacted_thinking", "data": "x"}, text("Yes.")), USER)
    assert shown(chat)[1] == {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("all", [True, True, True]),
        ({"type": "thinking_turns", "value": 2}, [False, True, True]),
        (None, [False, False, True]),
    ],
)
def test_earlier_thoughts_are_cleared(keep: Any, left: list[bool]) -> None:
    turns = [
        message
        for number in range(3)
        for message in (USER, said({"type": "thinking", "thinking": f"{number}"}, text("Yes.")))
    ]
    edit = {"type": "clear_thinking_20251015"} | ({} if keep is None else {"keep": keep})
    chat = read(*turns, USER, context_management={"edits": [edit]})
    found = ["reasoning_content" in m for m in shown(chat) if m["role"] == "assistant"]
    assert found == left


@pytest.mark.parametrize(
    ("thinking", "config", "effort"),
    [
        (None, None, None),
        ({"type": "disabled"}, {"effort": "high"}, "none"),
        ({"type": "enabled", "budget_tokens": 1024}, None, "medium"),
        ({"type": "adaptive"}, {"effort": "low"}, "low"),
        (None, {"effort": "max"}, "max"),
    ],
)
def test_how_much_to_think(thinking: Any, config: Any, effort: str | None) -> None:
    assert read(thinking=thinking, output_config=config).wanted_effort == effort


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, None),
        ({"type": "any"}, (True, None)),
        ({"type": "any", "disable_parallel_tool_use": True}, (True, 1)),
        ({"type": "tool", "name": "Bash"}, (True, 1)),
    ],
)
def test_choices_of_tools(choice: Any, wanted: Any) -> None:
    chat = read(tools=[TOOL], tool_choice=choice)
    found = chat.wanted_calls
    assert (found and (found.is_forced, found.max_calls)) == wanted
    assert len(chat.offered_tools) == 1
    assert read(tools=[TOOL], tool_choice={"type": "none"}).offered_tools == []


def test_examples_are_in_the_schema_and_hosted_tools_are_not_offered() -> None:
    tool = {**TOOL, "input_examples": [{"command": "ls"}], "strict": True}
    hosted = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    chat = read(tools=[hosted, tool])
    (offered,) = chat.offered_tools
    assert offered["function"]["parameters"]["examples"] == [{"command": "ls"}]
    error = InvalidRequest("tools[0].parameters: no", param="tools[0].parameters")
    chat.reword(error)
    assert (error.param, error.message) == ("tools[1].input_schema", "tools[1].input_schema: no")
    assert refused(tools=[hosted], tool_choice={"type": "tool", "name": "web_search"})


def test_refusals_of_the_chat_are_put_in_the_words_of_this_body() -> None:
    chat = read(USER, said(text("a"), CALL), heard(result("r")), system="S")
    for chat_path, path in (
        ("messages[0].content", "system"),
        ("messages[2].content", "messages[1].content"),
        ("messages[2].tool_calls[0]", "messages[1].content[1].input"),
        ("messages[3].content", "messages[2].content[0].content"),
        ("response_format.schema", "output_config.format.schema"),
        ("stop", "stop_sequences"),
        ("reasoning_effort", "output_config.effort"),
        ("temperature", "temperature"),
    ):
        error = InvalidRequest(f"{chat_path}: no", param=chat_path)
        chat.reword(error)
        assert (error.param, error.message) == (path, f"{path}: no")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        *[({"messages": [wrong]}, "messages[0]") for wrong in (None, 1, "x", [])],
        *[({"tools": [wrong]}, "tools[0]") for wrong in (None, 1, "x", [])],
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [heard({"type": "image", "source": {}})]}, "messages[0].content[0].type"),
        ({"messages": [heard({"type": "document"})]}, "messages[0].content[0].type"),
        ({"messages": [heard(text("a", x=1))]}, "messages[0].content[0].x"),
        ({"messages": [heard(result("r"))]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [USER, said({**CALL, "input": "x"})]}, "messages[1].content[0].input"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"system": 3}, "system"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "name": "Bash"}}, "tool_choice.name"),
        ({"thinking": {"type": "much"}}, "thinking.type"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
         "context_management.edits[0].type"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": 3}]}},
         "context_management.edits[0].keep"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"stop": ["a"]}, "stop"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"nothing": 1}, "nothing"),
        ({"temperature": 3}, "temperature"),
        ({"min_tokens": 200}, "min_tokens"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


def test_null_is_the_same_as_nothing() -> None:
    names = ("system", "tools", "tool_choice", "thinking", "output_config", "container", "stop")
    assert shown(read(**dict.fromkeys(names))) == shown(read())
    assert read(mcp_servers=[], container=None).tools is None


def test_counting_takes_what_the_prompt_depends_on() -> None:
    counted = parse_count_request({"model": "m", "messages": [USER], "tools": [TOOL]})
    assert shown(counted) == shown(read(tools=[TOOL]))
    with pytest.raises(InvalidRequest, match="max_tokens"):
        parse_count_request({"messages": [USER], "max_tokens": 3})


WORDS = st.sampled_from([
    "type", "text", "tool_use", "tool_result", "thinking", "user", "assistant", "role", "content",
    "id", "toolu_1", "name", "input", "any", "auto", "edits", "keep", "all", "format", "schema",
])  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*sorted(body(**CLAUDE_CODE)), "tool_choice", "output_format", "betas"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_every_body_is_read_or_refused(fields: dict[str, Any]) -> None:
    for sent in (fields, body(**CLAUDE_CODE) | fields):
        with suppress(InvalidRequest):
            assert parse_messages_request(sent).messages
