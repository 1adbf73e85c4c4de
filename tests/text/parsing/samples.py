"""Answers as models of each family write them, with what a client must get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.detection import NONE, detect
from millstream.text.parsing.output import (
    Delta,
    OutputParser,
    ParsedAnswer,
    ParsedCall,
    join,
)


def tool(name: str, **types: Any) -> dict[str, Any]:
    properties = {key: {"type": value} for key, value in types.items()}
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool(
        "get_weather",
        city="string",
        days="integer",
        metric="boolean",
        hours="array",
        limit=["number", "null"],
    ),
    tool("now"),
    tool("write-file", path="string", text="string"),
]


@dataclass(frozen=True)
class Sample:
    """An answer in a named format. started: how its prompt ends."""

    tools: str
    text: str
    answer: ParsedAnswer
    reasoning: str = NONE
    started: str = ""

    def parser(self, tools: Sequence[Any] = TOOLS) -> OutputParser:
        return choose(self.reasoning, self.tools).parser(prompt=self.started, tools=tools)


@cache
def choose(reasoning: str, tools: str) -> AnswerReader:
    return detect("", (), reasoning=reasoning, tools=tools)


def in_pieces(parser: OutputParser, pieces: Sequence[str]) -> list[Delta]:
    return [*(delta for piece in pieces for delta in parser.push(piece)), *parser.finish()]


def answer(parser: OutputParser, *pieces: str) -> ParsedAnswer:
    return join(in_pieces(parser, pieces))


def call(name: str, arguments: str = "{}") -> ParsedCall:
    return ParsedCall(name, arguments)


def check(
    family: str,
    text: str,
    expected: ParsedAnswer,
    reasoning: str = "think",
    *,
    tools: Sequence[Any] = TOOLS,
) -> None:
    sample = Sample(family, text, expected, reasoning=reasoning)
    assert answer(sample.parser(tools), text) == expected
    assert answer(sample.parser(tools), *text) == expected
    for place in range(len(text)):
        assert answer(sample.parser(tools), text[:place], text[place:]) == expected, text[:place]


PARIS = '{"city": "Paris", "days": 3}'
NESTED = '{"city": "\\u00e9 \\ud83d\\ude00 {\\"a\\"}</tool_call>]", "hours": [[1], {"b": []}]}'

SAMPLES = {
    "hermes": Sample(
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": ' + PARIS + "}\n</tool_call>",
        ParsedAnswer(calls=(call("get_weather", PARIS),)),
    ),
    "hermes, parallel, with thoughts and text": Sample(
        "hermes",
        '<think>\nTwo <tool_call>{"name": "now"}</tool_call>.\n</think>\n\nI look.\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"arguments": ' + NESTED + ', "name": "get_weather"}\n</tool_call>\nDone.',
        ParsedAnswer(
            "I look.\nDone.",
            'Two <tool_call>{"name": "now"}</tool_call>.',
            (call("now"), call("get_weather", NESTED)),
        ),
        reasoning="think",
    ),
    "hermes, two objects in one block": Sample(
        "hermes",
        '<tool_call>\n{"name": "now"}\n{"name": "now", "arguments": null}\n</tool_call>',
        ParsedAnswer(calls=(call("now"), call("now"))),
    ),
    "qwen3-coder": Sample(
        "qwen3-coder",
        "Now.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n"
        '<parameter=hours>\n[1, "x"]\n</parameter>\n<parameter=limit>\nnull\n</parameter>\n'
        "<parameter=other>\n7\n</parameter>\n</function>\n</tool_call>",
        ParsedAnswer(
            "Now.",
            calls=(
                call(
                    "get_weather",
                    '{"city": "Paris", "days": 3, "metric": true, "hours": [1, "x"], '
                    '"limit": null, "other": "7"}',
                ),
            ),
        ),
    ),
    "qwen3-coder, code in an argument": Sample(
        "qwen3-coder",
        "<tool_call>\n<function=write-file>\n<parameter=text>\n    if a < b:\n\n"
        '        print("\\n</p")\n\n</parameter>\n</function>\n</tool_call>\n'
        "<function=now></function>",
        ParsedAnswer(
            calls=(
                call(
                    "write-file",
                    json.dumps({"text": '    if a < b:\n\n        print("\\n</p")\n'}),
                ),
                call("now"),
            )
        ),
    ),
    "glm": Sample(
        "glm",
        "<think>Hm.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n"
        "<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
        "</tool_call>",
        ParsedAnswer(reasoning="Hm.", calls=(call("get_weather", PARIS),)),
        reasoning="think",
    ),
    "minimax": Sample(
        "minimax",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>'
        '\n<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n'
        "</minimax:tool_call>",
        ParsedAnswer(calls=(call("get_weather", PARIS), call("now"))),
    ),
    "llama3": Sample(
        "llama3",
        '{"name": "get_weather", "parameters": ' + PARIS + "}",
        ParsedAnswer(calls=(call("get_weather", PARIS),)),
    ),
    "llama3, after a tag, parallel": Sample(
        "llama3",
        '<|python_tag|>{"type": "function", "name": "now", "parameters": {}}; '
        '{"name": "get_weather", "parameters": ' + NESTED + "}",
        ParsedAnswer(calls=(call("now"), call("get_weather", NESTED))),
    ),
    "mistral, list": Sample(
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": ' + NESTED + '}, {"name": "now", '
        '"arguments": {}, "id": "a1b2c3d4e"}]',
        ParsedAnswer(calls=(call("get_weather", NESTED), call("now"))),
    ),
    "mistral, names": Sample(
        "mistral",
        "[THINK]Hm.[/THINK]Now.[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]" + NESTED + ""
        "[TOOL_CALLS]now{}",
        ParsedAnswer("Now.", "Hm.", (call("get_weather", NESTED), call("now"))),
        reasoning="magistral",
    ),
    "deepseek 3": Sample(
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        + PARIS
        + "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}"
        "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ParsedAnswer(calls=(call("get_weather", PARIS), call("now"))),
    ),
    "deepseek 3.1": Sample(
        "deepseek",
        "I think.\n</think>\n\nNow.<｜tool▁calls▁begin｜>"
        "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        + NESTED
        + "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ParsedAnswer("Now.", "I think.", (call("get_weather", NESTED),)),
        reasoning="think",
        started="<｜Assistant｜><think>\n",
    ),
    "harmony": Sample(
        "harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        "<|constrain|>json<|message|>" + PARIS + "<|call|>",
        ParsedAnswer("I look.", "Hm.", (call("get_weather", PARIS),)),
        reasoning="harmony",
    ),
    "harmony, recipient first": Sample(
        "harmony",
        " to=functions.now<|channel|>commentary json<|message|>{}<|call|><|start|>assistant"
        "<|channel|>final<|message|>Noon.<|return|>",
        ParsedAnswer("Noon.", "", (call("now"),)),
        reasoning="harmony",
    ),
}
