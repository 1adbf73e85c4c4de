"""The names of calls: of offered tools, of their endings, and of tools that nobody has."""

from __future__ import annotations

import pytest

from millstream.text.parsing.output import ParsedAnswer
from tests.text.parsing.samples import call, check, tool


@pytest.mark.parametrize(
    ("family", "text", "arguments"),
    [
        ("hermes", '<tool_call>\n{"name": "rm", "arguments": {"a": 1}}\n</tool_call>', '{"a": 1}'),
        ("hermes", '<tool_call>\n{"name": "rm", "arguments": {"a": "</tool_call>"}}', None),
        (
            "qwen3-coder",
            "<tool_call>\n<function=rm>\n<parameter=a>\n1\n</parameter>\n</function>",
            '{"a": "1"}',
        ),
        ("qwen3-coder", "<function=rm>\n</function>\n</tool_call>", "{}"),
        ("mistral", '[TOOL_CALLS][{"name": "rm", "arguments": {}}]', "{}"),
        ("mistral", "[TOOL_CALLS]rm[ARGS]{}", "{}"),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>rm<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
            "{}",
        ),
        ("harmony", "<|channel|>commentary to=functions.rm<|message|>{}<|call|>", "{}"),
        ("llama3", '<|python_tag|>{"name": "rm", "parameters": {}}', "{}"),
    ],
)
def test_a_marked_call_is_one_whatever_its_name(
    family: str, text: str, arguments: str | None
) -> None:
    """An agent tells the model that there is no such tool, and goes on."""
    made = call("rm", arguments or '{"a": "</tool_call>"}')
    reasoning = "harmony" if family == "harmony" else "think"
    check(family, text, ParsedAnswer(calls=(made,)), reasoning)


READ = "mcp__files__read"
PLUGIN_TOOLS = [tool("math-add", a="integer"), tool(READ, path="string")]


@pytest.mark.parametrize(
    ("family", "text", "made"),
    [
        ("hermes", '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>', "math-add"),
        ("hermes", '<tool_call>\n{"name": "read", "arguments": {}}\n</tool_call>', READ),
        ("hermes", '<tool_call>\n{"name": "files__read", "arguments": {}}\n</tool_call>', READ),
        ("hermes", '<tool_call>\n{"name": "dd", "arguments": {}}\n</tool_call>', "dd"),
        ("mistral", "[TOOL_CALLS]add[ARGS]{}", "math-add"),
        ("llama3", '{"name": "add", "parameters": {}}', "math-add"),
        ("qwen3-coder", "<function=add>\n</function>\n</tool_call>", "math-add"),
        ("glm", "<tool_call>read\n</tool_call>", READ),
    ],
)
def test_the_ending_of_one_tools_name_is_that_tool(family: str, text: str, made: str) -> None:
    """Small models leave out a plugin or server that stands before the name."""
    check(family, text, ParsedAnswer(calls=(call(made),)), tools=PLUGIN_TOOLS)


def test_arguments_have_the_types_of_the_tool_that_is_meant() -> None:
    text = "<function=add>\n<parameter=a>\n1\n</parameter>\n</function>"
    check(
        "qwen3-coder", text, ParsedAnswer(calls=(call("math-add", '{"a": 1}'),)), tools=PLUGIN_TOOLS
    )


@pytest.mark.parametrize("others", [["home-add", "shop-add"], ["home-add", "add"], ["home_add"]])
def test_an_ending_of_several_tools_an_offered_name_and_a_word_stay(others: list[str]) -> None:
    text = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
    check("hermes", text, ParsedAnswer(calls=(call("add"),)), tools=[tool(one) for one in others])
