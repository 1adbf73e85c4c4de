"""Tools and reasoning in a request: what is accepted, and how the template gets it."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.api.openai.schema import ChatRequest, parse_chat_request
from millstream.errors import InvalidRequest

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"x": {"enum": ["a", None], "default": None}}}


def tool(name: Any = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request({"messages": HELLO, **fields})


def refused_param(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value.param


def test_tools_reach_the_template_as_they_were_sent() -> None:
    sent = tool("get_weather-2", description="d", parameters=SCHEMA)
    assert parse(tools=[sent, tool("g")]).offered_tools == [sent, tool("g")]
    empty = tool("f", description=None, parameters=None, strict=False)
    assert parse(tools=[empty]).offered_tools == [tool("f")]
    many = [tool(f"f{i}" + "x" * 60) for i in range(128)]
    assert parse(tools=many).offered_tools == many


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": None}, {"tool_choice": "auto"}])
def test_no_tools(fields: dict[str, Any]) -> None:
    assert parse(**fields).offered_tools == []


def test_tool_choice() -> None:
    tools = [tool()]
    assert parse(tools=tools, tool_choice="auto").offered_tools == tools
    assert parse(tools=tools, tool_choice="none").offered_tools == []


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ({}, "tools"),
        ([{}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "custom", "custom": {"name": "f"}}], "tools[0].type"),
        ([tool(), tool("")], "tools[1].function.name"),
        ([tool("f g")], "tools[0].function.name"),
        ([tool("f\n")], "tools[0].function.name"),
        ([tool("x" * 65)], "tools[0].function.name"),
        ([tool(parameters=[])], "tools[0].function.parameters"),
        ([tool(strict=True)], "tools[0].function.strict"),
        ([tool(colour="red")], "tools[0].function.colour"),
        ([tool("f"), tool("g"), tool("f")], "tools[2].function.name"),
        ([tool(f"f{i}") for i in range(129)], "tools"),
    ],
)
def test_wrong_tools_are_named(tools: Any, param: str) -> None:
    assert refused_param(tools=tools) == param


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_calls_cannot_be_forced(choice: Any) -> None:
    assert refused_param(tools=[tool()], tool_choice=choice) == "tool_choice"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_regex": "a"}, "guided_regex"),
    ],
)
def test_what_leaves_no_call_to_read_is_refused_with_tools(
    fields: dict[str, Any], param: str
) -> None:
    assert refused_param(tools=[tool()], **fields) == param
    parse(**fields)
    parse(tools=[tool()], tool_choice="none", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning": "Hm.", "reasoning_content": "Hm."},
        {"reasoning": None, "reasoning_content": "Hm."},
    ],
)
def test_reasoning_of_earlier_turns_reaches_the_template(fields: dict[str, Any]) -> None:
    request = parse(messages=[*HELLO, {"role": "assistant", "content": "Hi", **fields}])
    assert [message.to_template() for message in request.messages] == [
        HELLO[0],
        {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."},
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x", "reasoning": "Hm."},
        {"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"},
    ],
)
def test_reasoning_that_is_nobodys_is_refused(message: dict[str, Any]) -> None:
    assert refused_param(messages=[*HELLO, message]) == "messages[1].reasoning_content"
