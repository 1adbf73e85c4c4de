"""Tools and reasoning in a request: what is accepted, and how the template gets it."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request

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


def flat(name: Any = "f", **more: Any) -> dict[str, Any]:
    """As the Responses API writes tools."""
    return {"type": "function", "name": name} | more


def test_tools_reach_the_template_as_they_were_sent() -> None:
    sent = tool("get_weather-2", description="d", parameters=SCHEMA)
    assert parse(tools=[sent, tool("g")]).offered_tools == [sent, tool("g")]
    for strict in (None, False, True):
        empty = tool("f", description=None, parameters=None, strict=strict)
        empty["function"]["return"] = None
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
        ([tool("x" * 129)], "tools[0].function.name"),
        ([tool(parameters=[])], "tools[0].function.parameters"),
        ([tool(strict="yes")], "tools[0].function.strict"),
        ([tool(**{"return": {}})], "tools[0].function.return"),
        ([tool(colour="red")], "tools[0].function.colour"),
        ([tool("f"), tool("g"), tool("f")], "tools[2].function.name"),
        ([tool(f"f{i}") for i in range(129)], "tools"),
        ([flat("f g")], "tools[0].name"),
        ([flat(parameters=[])], "tools[0].parameters"),
        ([flat(colour="red")], "tools[0].colour"),
        ([tool("f"), flat("f")], "tools[1].name"),
        ([tool() | {"name": "f"}], "tools[0].name"),
        ([tool() | {"parameters": {}}], "tools[0].parameters"),
        ([tool(strict=True) | {"strict": False}], "tools[0].strict"),
    ],
)
def test_wrong_tools_are_named(tools: Any, param: str) -> None:
    assert refused_param(tools=tools) == param


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


THREE = [tool("f"), tool("g"), tool("h")]


@pytest.mark.parametrize(
    ("choice", "places", "is_forced", "max_calls"),
    [
        ("required", (0, 1, 2), True, None),
        (named("g"), (1,), True, 1),
        ({"function": {"name": "g"}}, (1,), True, 1),
        ("g", (1,), True, 1),
        (allowed("required", "h", "f", "h"), (0, 2), True, None),
        (allowed("auto", "h"), (2,), False, None),
    ],
)
def test_what_must_be_called(
    choice: Any, places: tuple[int, ...], is_forced: bool, max_calls: int | None
) -> None:
    request = parse(tools=THREE, tool_choice=choice)
    wanted = request.wanted_calls
    assert wanted == ("tool_choice", places, is_forced, max_calls, False)
    assert request.must_call == is_forced
    assert request.offered_tools == THREE, "the model is told of all"
    assert request.callable_tools == [THREE[place] for place in places]
    assert request.is_tool_named == (max_calls == 1)
    one = parse(tools=THREE, tool_choice=choice, parallel_tool_calls=False).wanted_calls
    assert one is not None
    assert one.max_calls == 1


def test_strict_tools_are_held_to_their_schemas() -> None:
    tools = [tool("f"), tool("g", strict=True)]
    wanted = ("tools[1].function.strict", (0, 1), False, None, False)
    for fields in ({}, {"tool_choice": "auto"}):
        assert parse(tools=tools, **fields).wanted_calls == wanted
    for fields in ({"tools": THREE}, {"tools": tools, "tool_choice": "none"}, {}):
        request = parse(**fields)
        assert request.wanted_calls is None
        assert not request.must_call
        assert not request.is_tool_named


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("sometimes", "tool_choice"),
        ("", "tool_choice"),
        (5, "tool_choice"),
        ({"type": "tool", "function": {"name": "f"}}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
        ({"type": "function", "name": "x"}, "tool_choice.name"),
        (named("f") | {"name": "f"}, "tool_choice.name"),
        ({"type": "auto", "name": "f"}, "tool_choice.name"),
        ({"type": "any"} | {"function": {"name": "f"}}, "tool_choice.function"),
        (named("x"), "tool_choice.function.name"),
        (allowed("auto", "f") | named("f"), "tool_choice.allowed_tools"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        (allowed("auto", "f") | {"function": {"name": "f"}}, "tool_choice.function"),
        (allowed("never", "f"), "tool_choice.allowed_tools.mode"),
        (allowed("auto"), "tool_choice.allowed_tools.tools"),
        (allowed("auto", "f", "x"), "tool_choice.allowed_tools.tools[1].function.name"),
    ],
)
def test_a_choice_of_what_is_not_there_is_named(choice: Any, param: str) -> None:
    assert refused_param(tools=THREE, tool_choice=choice) == param


@pytest.mark.parametrize("choice", ["required", "f", named("f"), allowed("auto", "f")])
def test_a_choice_without_tools(choice: Any) -> None:
    for fields in ({}, {"tools": []}):
        param = refused_param(tool_choice=choice, **fields)
        assert param is not None
        assert param.startswith("tool_choice")


def test_what_leaves_no_call_to_read_is_refused_with_tools() -> None:
    fields: dict[str, Any] = {"skip_special_tokens": False}
    assert refused_param(tools=[tool()], **fields) == "skip_special_tokens"
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


def test_flat_tools_are_the_same_tools() -> None:
    sent = [flat("f", description="d", parameters=SCHEMA), flat("g", strict=None)]
    nested = [tool("f", description="d", parameters=SCHEMA), tool("g")]
    assert parse(tools=sent).offered_tools == nested
    named_one = parse(tools=sent, tool_choice="g")
    assert named_one.callable_tools == [nested[1]]


@pytest.mark.parametrize(
    ("strict", "path"),
    [
        (flat("g", strict=True), "strict"),
        (tool("g") | {"strict": True}, "strict"),
        (tool("g", strict=True) | {"strict": True}, "strict"),
        (tool("g", strict=True) | {"strict": None}, "function.strict"),
    ],
)
def test_strict_holds_wherever_it_is_written(strict: dict[str, Any], path: str) -> None:
    request = parse(tools=[tool("f"), strict])
    assert request.wanted_calls == (f"tools[1].{path}", (0, 1), False, None, False)
    assert request.offered_tools == [tool("f"), tool("g")]
    assert (request.tools or [])[1].called.strict


@pytest.mark.parametrize(
    ("choice", "same"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "required"}, "required"),
        ({"type": "any"}, "required"),
        ("any", "required"),
        ({"type": "function", "name": "g"}, named("g")),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "h"}]},
            },
            allowed("auto", "h"),
        ),
    ],
)
def test_choices_that_others_write_mean_the_same(choice: Any, same: Any) -> None:
    found, meant = parse(tools=THREE, tool_choice=choice), parse(tools=THREE, tool_choice=same)
    assert found.wanted_calls == meant.wanted_calls
    assert found.offered_tools == meant.offered_tools
    assert found.callable_tools == meant.callable_tools
    assert found.is_tool_named == meant.is_tool_named


def test_a_tool_that_is_called_any_can_be_named() -> None:
    request = parse(tools=[tool("f"), tool("any")], tool_choice="any")
    assert request.callable_tools == [tool("any")]
