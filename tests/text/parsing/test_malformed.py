"""Calls that are none, break off or end early: nothing is lost, and no cut changes what is made."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.text.parsing.output import ParsedAnswer, ParsedCall
from tests.text.parsing.samples import SAMPLES, Sample, answer, call, check

CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("hermes", 'Say <tool_call> and </tool_call>, or <tool_call>"x".'),
        ("hermes", '<tool_call>\n{"arguments": {"a": 1}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": ["now"], "arguments": {}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "now", "arguments": [1]}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "now", "arguments": "{1}"}\n</tool_call>'),
        ("hermes", "<tool_call>\n{'name': 'now'}\n</tool_call>\n"),
        ("hermes", '<tool_call>\n{"name": "no'),
        ("hermes", '<tool_call>\n{"arguments": {"a": 1}, "na'),
        ("hermes", "Hello <tool_ca"),
        ("qwen3-coder", "<tool_call>\n<function=now"),
        ("hermes", '<tool_call>\n{"name": " ", "arguments": {}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": 5, "arguments": {}}\n</tool_call>'),
        ("llama3", '{"name": "Bob", "age": 3}'),
        ("llama3", '{"name": "Bob", "parameters": {"age": 3}}'),
        ("llama3", '\n {"name": "now", "age": 3} '),
        ("llama3", '{"name": "now"}'),
        ("llama3", '{"answer": {"name": "now", "parameters": {}}} as you asked'),
        ("llama3", 'It is {"name": "now", "parameters": {}}'),
        ("llama3", "<|python_tag|>print(1)"),
        ("mistral", "[TOOL_CALLS][]"),
        ("mistral", "[TOOL_CALLS] as a list: [1]"),
    ],
)
def test_what_is_no_call_is_content_as_written(family: str, text: str) -> None:
    check(family, text, ParsedAnswer(text))


def test_a_call_after_one_that_is_none() -> None:
    bad = '<tool_call>\n{"name": "", "arguments": {}}\n</tool_call>'
    check("hermes", f"{bad}\n{CALL}", ParsedAnswer(bad, calls=(call("now"),)))
    check(
        "hermes", f"Use <tool_call>.\n{CALL}", ParsedAnswer("Use <tool_call>.", "", (call("now"),))
    )


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"a": 1,}', '{"a": 1,}'),  # invalid, but whole
        ('{"a": True, "b": NaN}', '{"a": True, "b": NaN}'),
        ('{"a": "x\ty\nz"}', '{"a": "x\\ty\\nz"}'),  # JSON has no raw control characters
        ('{"a": "\\\n"}', '{"a": "\\\\n"}'),
        ('"{\\"a\\": 1}"', '{"a": 1}'),  # JSON within a string
        ("null", "{}"),
    ],
)
def test_arguments_are_the_models_own(written: str, arguments: str) -> None:
    text = f'<tool_call>\n{{"name": "now", "arguments": {written}}}\n</tool_call>'
    check("hermes", text, ParsedAnswer(calls=(call("now", arguments),)))


def test_a_call_that_breaks_after_its_start_keeps_its_text() -> None:
    text = '<tool_call>\n{"name": "now", "arguments": {"a": \'x\'}}\n</tool_call>\nDone.'
    check("hermes", text, ParsedAnswer("Done.", "", (call("now", "{\"a\": 'x'}}\n"),)))
    unclosed = '<tool_call>\n{"name": "now", "arguments": {"a": 1</tool_call>\n' + CALL
    check("hermes", unclosed, ParsedAnswer(calls=(call("now", '{"a": 1'), call("now"))))


def test_what_follows_whole_arguments_does_not_spoil_them() -> None:
    head = '<tool_call>\n{"name": "now", "arguments": {"a": 1}'
    made = (call("now", '{"a": 1}'),)
    check("hermes", head + "\n</tool_call>\nDone.", ParsedAnswer("Done.", "", made))
    check("hermes", head + '}\n"</tool_call>', ParsedAnswer('"</tool_call>', "", made))
    check("hermes", head + "]</tool_call>", ParsedAnswer("]</tool_call>", "", made))
    check("hermes", head + ', "id": 7, "arguments": {"b": 2}}', ParsedAnswer(calls=made))


def test_text_between_tags_is_content() -> None:
    text = "<function=now>\nLet me\nsee <a>.\n<parameter=a>\n1\n</parameter>\n</function>\n"
    check("qwen3-coder", text, ParsedAnswer("Let me\nsee <a>.", "", (call("now", '{"a": "1"}'),)))


@pytest.mark.parametrize(
    ("family", "text", "arguments"),
    [
        ("hermes", '<tool_call>\n{"name": "now", "arguments": {"a": "Par', '{"a": "Par'),
        ("mistral", '[TOOL_CALLS]now[ARGS]{"a": {"b"', '{"a": {"b"'),
        ("qwen3-coder", "<function=now>\n<parameter=a>\nPar</para", '{"a": "Par</para'),
        ("qwen3-coder", "<function=get_weather>\n<parameter=days>\n1", '{"days": 1'),
        ("qwen3-coder", "<function=now>\n<parameter=a>\n1\n</parameter>", '{"a": "1"'),
    ],
)
def test_an_answer_that_ends_within_a_call(family: str, text: str, arguments: str) -> None:
    name = "get_weather" if "get_weather" in text else "now"
    check(family, text, ParsedAnswer(calls=(call(name, arguments),)))


def test_deep_nesting_is_only_text() -> None:
    deep = "[" * 100_000
    head = '<tool_call>{"name": "now", "arguments": '
    check_once("hermes", f'{head}{{"a": {deep}', call("now", f'{{"a": {deep}'))
    check_once("hermes", f'{head}"{deep}"}}</tool_call>')
    check_once("hermes", f'{head}{{}}, "id": {deep}', call("now"))
    text = f"<function=get_weather>\n<parameter=hours>\n{deep}\n</parameter>\n</function>"
    check_once("qwen3-coder", text, call("get_weather", f'{{"hours": "{deep}"}}'))


def check_once(family: str, text: str, *calls: ParsedCall) -> None:
    expected = ParsedAnswer("" if calls else text, "", calls)
    assert answer(Sample(family, text, expected).parser(), text) == expected


@pytest.mark.parametrize(
    ("kind", "raw", "written"),
    [
        ("integer", "3.0", "3"),
        ("integer", "3.5", '"3.5"'),
        ("integer", "true", '"true"'),
        ("number", "1e3", "1000.0"),
        ("number", "NaN", '"NaN"'),
        ("boolean", "False", "false"),
        ("boolean", "1", '"1"'),
        ("object", '{"a": "é"}', '{"a": "é"}'),
        ("object", "[1]", '"[1]"'),
        ("array", "['a']", "\"['a']\""),
        (["string", "null"], "None", "null"),
        (["string", "null"], "7", '"7"'),
        ("string", "7", '"7"'),
    ],
)
def test_types_come_from_the_schema(kind: object, raw: str, written: str) -> None:
    schema = {"properties": {"a": {"anyOf": [{"type": kind}]}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    text = f"<function=f>\n<parameter=a>\n{raw}\n</parameter>\n</function>"
    sample = SAMPLES["qwen3-coder"]
    expected = ParsedAnswer(calls=(call("f", f'{{"a": {written}}}'),))
    assert answer(sample.parser(tools), text) == expected
    assert answer(sample.parser(tools), *text) == expected
    json.loads(expected.calls[0].arguments)


# Anything at all: pieces of every format in any order.

PIECES = {
    sample.tools: sorted(
        {
            piece
            for other in SAMPLES.values()
            if other.tools == sample.tools
            for piece in re.findall(
                r"<[^>\n]*>|\[/?[A-Z_]+\]|```json|[{}\[\]]|\"\w+\"|\s|.", other.text
            )
        }
        | {'"name": "now"', '"arguments": {', '"parameters": {', "<think>", "</think>", "\\", CALL}
    )
    for sample in SAMPLES.values()
}


@pytest.mark.parametrize("family", PIECES)
@settings(max_examples=60)
@given(data=st.data())
def test_no_text_is_cut_dependent(family: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(PIECES[family]), max_size=25))
    text = "".join(pieces)
    sample = Sample(family, text, ParsedAnswer(), reasoning="think")
    whole = answer(sample.parser(), text)
    assert answer(sample.parser(), *text) == whole
    assert answer(sample.parser(), *pieces) == whole


@pytest.mark.parametrize("family", sorted(set(PIECES) - {"harmony", "mistral"}))
@settings(max_examples=60)
@given(data=st.data())
def test_no_word_is_lost(family: str, data: st.DataObject) -> None:
    """Words strewn between the pieces all come out. (Values of keys that no call has do not.)"""
    pieces = data.draw(st.lists(st.sampled_from(PIECES[family]), max_size=25))
    pieces = [piece for piece in pieces if not re.fullmatch(r'"\w+"', piece)]
    words = [f"W{index}W" for index in range(len(pieces))]
    text = "".join(piece + word for piece, word in zip(pieces, words, strict=True))
    sample = Sample(family, text, ParsedAnswer(), reasoning="think")
    parsed = answer(sample.parser(), text)
    shown = parsed.content + parsed.reasoning + "".join(c.name + c.arguments for c in parsed.calls)
    assert [word for word in words if word not in shown] == []
