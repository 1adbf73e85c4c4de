"""Reading answers that a grammar holds to a form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.text.parsing.call_families import CALL_FAMILIES
from millstream.text.parsing.detection import detect
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.output import ParsedAnswer, parse_whole
from millstream.text.parsing.tool_schemas import Tools

from .samples import PARIS, TOOLS, answer, call, choose
from .test_templates import DEMO_TEMPLATE, LAX, Parsers, template

CALL = '<tool_call>\n{"name": "get_weather", "arguments": ' + PARIS + "}\n</tool_call>"
# Calls as in Hermes, and something that only transformers' own parser reads.
MARKUP = template(
    {
        "open": "<tool_call>",
        "close": "</tool_call>",
        "content": "json",
        "content_args": {"allow_non_json": True},
        "transform": {"type": "function", "function": "{content}"},
    }
)
MARKED = '{"a": "<think>x</think>", "b": "<tool_call>{}"}'

WRITINGS = {family.name: family.writings for family in CALL_FAMILIES}


@pytest.mark.parametrize(
    ("started", "text", "said"),
    [
        ("", MARKED, ParsedAnswer(MARKED)),
        ("", "<think>Hm.</think>\n" + MARKED, ParsedAnswer(MARKED, "Hm.")),
        ("<think>\n", "Hm.\n</think>\n\n" + MARKED, ParsedAnswer(MARKED, "Hm.")),
        ("<think>\n", "</think><think>x", ParsedAnswer("<think>x")),
        ("", "\n <think>Hm.</think> <think>x", ParsedAnswer("<think>x", "Hm.")),
        ("", "a<think>", ParsedAnswer("a<think>")),
    ],
)
def test_reasoning_stands_at_the_beginning_only(
    started: str, text: str, said: ParsedAnswer
) -> None:
    def parser() -> Any:
        return choose("think", "hermes").parser(prompt=started, hold=GrammarHold.ANSWER)

    assert parse_whole(parser(), text) == said
    assert answer(parser(), *text) == said
    for cut in range(len(text)):
        assert answer(parser(), text[:cut], text[cut:]) == said


def test_what_is_no_text_elsewhere_is_text_in_a_format() -> None:
    choice = detect("[TOOL_CALLS]", ["[TOOL_CALLS]", "<junk>"])
    text = '["<junk>"]'
    free = choice.parser(prompt="", tools=TOOLS)
    assert parse_whole(free, text).content == '[""]'
    assert parse_whole(choice.parser(prompt="", hold=GrammarHold.ANSWER), text).content == text


def test_calls_come_after_the_reasoning() -> None:
    parser = choose("think", "hermes").parser(
        prompt="<think>", tools=TOOLS, hold=GrammarHold.ANSWER
    )
    said = parse_whole(parser, f"Hm. {CALL}</think>{CALL}")
    assert said == ParsedAnswer("", f"Hm. {CALL}", (call("get_weather", PARIS),))


@pytest.mark.parametrize("held", [GrammarHold.CALLS, GrammarHold.ANSWER])
def test_a_value_may_contain_its_own_closing_tag_in_a_json_string(held: GrammarHold) -> None:
    hours = '["</parameter>", "\\n</parameter>\\n", 1]'
    text = (
        "<tool_call>\n<function=get_weather>\n<parameter=hours>\n" + hours + "\n</parameter>\n"
        "<parameter=limit>\nnull\n</parameter>\n</function>\n</tool_call>"
    )
    choice = choose("none", "qwen3-coder")
    for pieces in ([text], list(text)):
        said = answer(choice.parser(prompt="", tools=TOOLS, hold=held), *pieces)
        arguments = json.loads(said.calls[0].arguments)
        assert arguments == {"hours": json.loads(hours), "limit": None}
    free = answer(choice.parser(prompt="", tools=TOOLS), text)
    assert free.content, "a model left alone may have broken its JSON off here"


def test_every_way_to_write_calls_is_read_back() -> None:
    for family in CALL_FAMILIES:
        for writing in family.writings:
            assert detect(writing.sign, (), tools=family.name).writing == writing


@pytest.mark.parametrize(
    ("chat_template", "name"),
    [("<tool_call> </think>", "hermes"), ("[TOOL_CALLS] [ARGS]", None), ("", None)],
)
def test_a_response_template_is_written_in_a_known_way_that_it_reads(
    chat_template: str, name: str | None
) -> None:
    choice = detect(chat_template, (), DEMO_TEMPLATE)
    assert choice.writing == (WRITINGS[name][0] if name else None)
    for fields in (LAX, MARKUP):
        choice = detect(chat_template, (), fields, response_parsers=Parsers(fields))
        assert choice.response_parsers is not None
        is_read = name and fields is MARKUP
        assert choice.writing == (WRITINGS[name][0] if is_read else None)


def test_a_template_that_only_transformers_reads_gives_way_to_plain_json() -> None:
    choice = detect("</think>", (), LAX, response_parsers=Parsers(LAX))
    parser = choice.for_json_calls.parser(prompt="<think>", tools=TOOLS, hold=GrammarHold.ANSWER)
    said = parse_whole(parser, 'Hm.</think>[{"name": "now", "arguments": {}}]')
    assert said == ParsedAnswer("", "Hm.", (call("now"),))
    parser = choice.for_formatted_answers.parser(prompt="<think>", hold=GrammarHold.ANSWER)
    assert parse_whole(parser, f"Hm.</think>{MARKED}") == ParsedAnswer(MARKED, "Hm.")


def test_types_of_arguments_that_are_described_elsewhere() -> None:
    parameters = {
        "properties": {
            "city": {"$ref": "#/$defs/City"},
            "level": {"enum": [1, 2.5, None, True, [1], {}, "x"]},
            "same": {"allOf": [{"$ref": "#/definitions/Name"}]},
            "fixed": {"const": False},
            "round": {"$ref": "#/$defs/Round"},
            "lost": {"$ref": "#/$defs/Nothing"},
            "far": {"$ref": "http://127.0.0.1/x"},
        },
        "$defs": {
            "City": {"type": "object"},
            "Round": {"anyOf": [{"$ref": "#/$defs/Round"}, {"type": "null"}]},
        },
        "definitions": {"Name": {"type": "string"}},
    }
    tools = Tools.of([{"function": {"name": "f", "parameters": parameters}}])
    assert {key: tools.types("f", key) for key in parameters["properties"]} == {
        "city": ("object",),
        "level": ("integer", "number", "null", "boolean", "array", "object", "string"),
        "same": ("string",),
        "fixed": ("boolean",),
        "round": ("null",),
        "lost": (),
        "far": (),
    }
