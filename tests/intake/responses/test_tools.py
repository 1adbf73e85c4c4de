"""Tools as the model is told of them, choices among them, and what its calls are called."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.fields.tools import WantedCalls
from millstream.intake.responses.tools import ToolOrigin
from tests.intake.responses.bodies import AGENTS, CLOSE, EXEC, SCHEMA, chat_of, messages, parsed

WEB = {"type": "web_search"}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, **more}


def namespace(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "description": "", "tools": list(tools)}


def names(*tools: dict[str, Any]) -> list[str]:
    """The tools' names for the model, each of which leads back to the tool's own."""
    made = chat_of(tools=list(tools))
    found = [tool["function"]["name"] for tool in made.chat.offered_tools]
    flat = [
        (inner, tool["name"] if "tools" in tool else None)
        for tool in tools
        for inner in tool.get("tools", [tool])
        if inner["type"] in ("function", "custom")
    ]
    for name, (tool, space) in zip(found, flat, strict=True):
        assert made.tools.origin(name) == ToolOrigin(tool["type"], tool["name"], space)
    return found


def test_a_tool_of_a_namespace_has_its_bare_name_if_it_is_the_only_one() -> None:
    assert names(EXEC, AGENTS) == ["exec_command", "close_agent", "spawn_agent"]
    assert names(CLOSE, AGENTS) == ["close_agent", "multi_agent_v1__close_agent", "spawn_agent"]
    one, two = namespace("a", function("f")), namespace("b", function("f"))
    assert names(one, two) == ["a__f", "b__f"]


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        (["a.b/c"], ["a_b_c"]),
        (["a.b", "a_b"], ["a_b", "a_b_2"]),
        (["mcp:größe"], ["mcp_gr__e"]),
        (["x" * 65], ["x" * 55 + "_9537c5fd"]),
    ],
)
def test_names_that_models_cannot_be_given_are_put_otherwise(
    sent: list[str], given: list[str]
) -> None:
    assert names(*map(function, sent)) == given


def test_calls_in_the_history_have_the_names_of_the_tools() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "a.b", "arguments": "{}"}
    made = messages(tools=[function("a.b"), AGENTS], input=[call])
    assert made[0]["tool_calls"][0]["function"]["name"] == "a_b"
    spaced = {**call, "name": "close_agent", "namespace": "multi_agent_v1"}
    made = messages(tools=[CLOSE, AGENTS], input=[spaced])
    assert made[0]["tool_calls"][0]["function"]["name"] == "multi_agent_v1__close_agent"
    assert messages(input=[spaced])[0]["tool_calls"][0]["function"]["name"] == "close_agent"


def test_the_first_tool_of_a_namespace_tells_of_it() -> None:
    close, spawn = chat_of(tools=[AGENTS]).chat.offered_tools
    assert close["function"] == {
        "name": "close_agent",
        "description": "multi_agent_v1: Helpers.",
        "parameters": SCHEMA,
    }
    assert spawn["function"]["description"] == "Starts one."


def test_a_custom_tool_is_a_function_with_one_text() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"+'}
    tool = {"type": "custom", "name": "apply", "description": "Applies.", "format": grammar}
    (offered,) = chat_of(tools=[tool]).chat.offered_tools
    description = offered["function"]["description"]
    assert description.startswith("Applies.\n\n")
    assert 'start: "a"+' in description
    parameters = offered["function"]["parameters"]
    assert parameters["required"] == ["input"]
    assert parameters["properties"]["input"]["type"] == "string"
    assert names(tool) == ["apply"]


def test_tools_that_openai_runs_are_not_offered() -> None:
    made = chat_of(tools=[WEB, {"type": "mcp", "server_label": "x"}, EXEC])
    assert len(made.chat.offered_tools) == 1
    assert chat_of(tools=[WEB]).chat.offered_tools == []
    assert made.tool_paths == ("tools[2]",)


def test_a_thousand_tools_are_offered() -> None:
    many = [function(f"f{number}") for number in range(1024)]
    assert len(chat_of(tools=many).chat.offered_tools) == 1024
    one_more = namespace("n", function("g"))
    with pytest.raises(InvalidRequest) as refusal:
        parsed(tools=[*many[:-1], namespace("n", function("g"), function("h"))])
    assert refusal.value.param == "tools"
    assert chat_of(tools=[*many[:-1], one_more]).chat.tools


CUSTOM = {"type": "custom", "name": "apply"}


@pytest.mark.parametrize(
    ("choice", "places", "is_forced"),
    [
        ("required", (0, 1, 2, 3), True),
        ({"type": "function", "name": "exec_command"}, (0,), True),
        ({"type": "custom", "name": "apply"}, (3,), True),
        ({"type": "function", "name": "close_agent", "namespace": "multi_agent_v1"}, (1,), True),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [WEB, {**CUSTOM}]},
            (3,),
            False,
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [function("spawn_agent")]},
            (2,),
            True,
        ),
    ],
)
def test_choices(choice: Any, places: tuple[int, ...], is_forced: bool) -> None:
    chat = chat_of(tools=[EXEC, AGENTS, CUSTOM], tool_choice=choice).chat
    wanted = chat.wanted_calls
    assert isinstance(wanted, WantedCalls)
    assert (wanted.places, wanted.is_forced) == (places, is_forced)


def test_choices_that_demand_nothing() -> None:
    assert chat_of(tools=[EXEC], tool_choice="auto").chat.wanted_calls is None
    assert chat_of(tools=[EXEC], tool_choice="none").chat.offered_tools == []
    none = {"type": "allowed_tools", "mode": "auto", "tools": [WEB]}
    assert chat_of(tools=[EXEC], tool_choice=none).chat.offered_tools == []


@pytest.mark.parametrize(
    ("choice", "path"),
    [
        ("any", "tool_choice"),
        (3, "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "no", "name": "x"}, "tool_choice.type"),
        ({"type": "web_search_preview"}, "tool_choice.type"),
        ({"type": "mcp", "server_label": "x"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.name"),
        ({"type": "function", "name": "no"}, "tool_choice.name"),
        ({"type": "custom", "name": "exec_command"}, "tool_choice.name"),
        ({"type": "allowed_tools", "mode": "no", "tools": [EXEC]}, "tool_choice.mode"),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, "tool_choice.tools"),
        ({"type": "allowed_tools", "mode": "required", "tools": [WEB]}, "tool_choice.tools"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [function("no")]},
            "tool_choice.tools[0].name",
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{}]}, "tool_choice.tools[0].type"),
    ],
)
def test_choices_that_are_wrong_are_named(choice: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        chat_of(tools=[EXEC, WEB], tool_choice=choice)
    assert refusal.value.param == path


def test_a_tool_that_openai_runs_cannot_be_demanded() -> None:
    with pytest.raises(InvalidRequest, match="this server has no tool web_search"):
        parsed(tools=[WEB], tool_choice=WEB)


def test_nothing_can_be_required_where_there_is_no_tool() -> None:
    for tools in ([], [WEB]):
        with pytest.raises(InvalidRequest) as refusal:
            chat_of(tools=tools, tool_choice="required")
        assert refusal.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        (3, ""),
        ({}, ".type"),
        ({"type": "no"}, ".type"),
        ({"type": "function"}, ".name"),
        (function(""), ".name"),
        (function("f", parameters=3), ".parameters"),
        (function("f", no_such=3), ".no_such"),
        (function("exec_command"), ".name"),
        ({"type": "custom", "name": "c", "format": {"type": "no"}}, ".format.type"),
        ({"type": "custom", "name": "c", "format": {"type": "grammar"}}, ".format.syntax"),
        (
            {"type": "custom", "name": "c", "format": {"type": "text", "syntax": "lark"}},
            ".format.syntax",
        ),
        ({"type": "namespace", "name": "n"}, ".tools"),
        ({"type": "namespace", "name": "n", "tools": [WEB]}, ".tools[0].type"),
        ({"type": "namespace", "name": "n", "tools": [function("")]}, ".tools[0].name"),
    ],
)
def test_tools_that_are_wrong_are_named(tool: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parsed(tools=[EXEC, tool])
    assert refusal.value.param == f"tools[1]{path}"
