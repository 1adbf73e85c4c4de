"""Each family's own way of writing: what the client gets, and that cuts do not change it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from millstream.text.parsing.call_families import CALL_FAMILIES
from millstream.text.parsing.output import (
    Content,
    ParsedAnswer,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
    join,
    parse_whole,
)
from millstream.text.parsing.reasoning_formats import REASONING_FORMATS
from tests.text.parsing.samples import SAMPLES, TOOLS, Sample, answer, call, in_pieces

every_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


def test_every_format_has_a_sample() -> None:
    assert {sample.tools for sample in SAMPLES.values()} == {f.name for f in CALL_FAMILIES}
    used = {sample.reasoning for sample in SAMPLES.values()}
    assert {f.name for f in REASONING_FORMATS} - used == {"seed"}


@every_sample
def test_a_whole_answer(sample: Sample) -> None:
    assert parse_whole(sample.parser(), sample.text) == sample.answer
    for made in sample.answer.calls:
        json.loads(made.arguments)


@every_sample
def test_every_single_cut_and_single_characters(sample: Sample) -> None:
    text = sample.text
    for cut in range(len(text)):
        assert answer(sample.parser(), text[:cut], text[cut:]) == sample.answer, text[:cut]
    assert answer(sample.parser(), *text) == sample.answer


# Every pair of cuts of the short samples; of the long ones, every piece up to a marker's length.
@every_sample
def test_every_pair_of_cuts(sample: Sample) -> None:
    text = sample.text
    longest = len(text) if len(text) < 90 else 5
    for start in range(len(text)):
        for end in range(start + 1, min(start + longest, len(text)) + 1):
            pieces = text[:start], text[start:end], text[end:]
            assert answer(sample.parser(), *pieces) == sample.answer, pieces


@every_sample
def test_every_beginning_is_a_beginning(sample: Sample) -> None:
    """What is streamed is never taken back, and each delta carries something."""
    parser, text = sample.parser(), sample.text
    deltas = in_pieces(parser, list(text))
    starts = [delta for delta in deltas if isinstance(delta, ToolCallStart)]
    assert [start.index for start in starts] == list(range(len(sample.answer.calls)))
    open_call = -1
    for delta in deltas:
        match delta:
            case ToolCallStart(index, _):
                open_call = index
            case ToolCallArguments(index, piece):
                assert index == open_call
                assert piece
            case Content(piece) | Reasoning(piece):
                assert piece


@every_sample
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_what_is_plain_is_read_in_one_go_to_the_same_end(sample: Sample, size: int) -> None:
    quick, slow = sample.parser(), sample.parser()
    for place in range(0, len(sample.text), size):
        piece = sample.text[place : place + size]
        part = quick.push_plain(piece)
        assert (quick.push(piece) if part is None else [part]) == slow.push(piece)
    assert quick.finish() == slow.finish()


def test_what_may_be_a_marker_is_not_plain() -> None:
    parser = SAMPLES["hermes"].parser()
    assert parser.push_plain("It is <b>warm</b>.") == Content("It is <b>warm</b>.")
    for text in ("a <tool_call>", "a <tool", "a <", "and ", "\n"):
        assert parser.push_plain(text) is None
    assert parser.push("x <") == [Content("x")]
    assert parser.push_plain("b") is None
    assert parser.push("b> y") == [Content(" <b> y")]


def test_arguments_stream_as_they_are_written() -> None:
    sample = SAMPLES["hermes"]
    parser, before = sample.parser(), sample.text.index(', "days"')
    shown = join([delta for character in sample.text[:before] for delta in parser.push(character)])
    assert shown.calls == (call("get_weather", '{"city": "Paris"'),)


def test_a_long_string_argument_streams_from_tags() -> None:
    sample = SAMPLES["qwen3-coder, code in an argument"]
    parser, before = sample.parser(), sample.text.index("a < b") + 5
    shown = join(parser.push(sample.text[:before]))
    assert shown.calls == (call("write-file", '{"text": "    if a < b'),)


@pytest.mark.parametrize("value", ["", "\n", "\n\n x \n", "x"])
def test_one_line_break_on_either_side_of_a_tagged_value_is_layout(value: str) -> None:
    text = f"<function=now>\n<parameter=a>\n{value}\n</parameter>\n</function>"
    expected = ParsedAnswer(calls=(call("now", json.dumps({"a": value})),))
    for place in range(len(text)):
        assert answer(SAMPLES["qwen3-coder"].parser(), text[:place], text[place:]) == expected


def test_plain_text_is_not_held_back() -> None:
    for name in ("hermes", "mistral, list", "deepseek 3", "harmony", "llama3"):
        parser = SAMPLES[name].parser()
        assert parser.push("Hello, world.") == [Content("Hello, world.")]
        assert parser.push(" Next < [ {") in ([Content(" Next < [ {")], [Content(" Next < [")])
        assert join(parser.push("x ") + parser.finish()).content.endswith("x ")


def test_a_thought_that_is_never_closed() -> None:
    sample = Sample("hermes", "", ParsedAnswer(), reasoning="think")
    assert answer(sample.parser(), "<think>\nOn and on ") == ParsedAnswer(reasoning="On and on ")
    inside = Sample("hermes", "", ParsedAnswer(), reasoning="think", started="user\n<think>\n")
    assert answer(inside.parser(), "On and </thin") == ParsedAnswer(reasoning="On and </thin")


def test_a_prompt_that_closed_the_thought() -> None:
    prompt = "What is <think>?\nassistant\n<think>\n\n</think>\n\n"
    sample = Sample("hermes", "", ParsedAnswer(), reasoning="think", started=prompt)
    assert answer(sample.parser(), "Hi.") == ParsedAnswer("Hi.")


def test_without_tools_a_call_is_text() -> None:
    text = SAMPLES["hermes"].text
    assert answer(SAMPLES["hermes"].parser(()), text) == ParsedAnswer(text)
    assert SAMPLES["hermes"].parser(()).push('<tool_call>{"na') == [Content('<tool_call>{"na')]


def test_white_space_at_markers_goes_and_other_stays() -> None:
    sample = SAMPLES["hermes, parallel, with thoughts and text"]
    assert answer(sample.parser(), " \n Hello\n ") == ParsedAnswer(" \n Hello\n ")
    made = '<tool_call>{"name": "now"}</tool_call>'
    assert answer(sample.parser(), f"\n{made}\n") == ParsedAnswer(calls=(call("now"),))
    assert answer(sample.parser(), f"A\n\n{made}\nB ").content == "A\n\nB "
    assert answer(sample.parser(), f"A{made}B").content == "AB"


# Round trips: any arguments, written as the family writes them, come back the same.

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["</tool_call>", '"}', "\\", "<think>", "]", "{", "\n", "</parameter", "[TOOL_CALLS]", "😀"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CUTS = st.lists(st.integers(0, 400), max_size=8)

WRITERS = {
    "hermes": '<tool_call>\n{{"name": "now", "arguments": {}}}\n</tool_call>',
    "mistral": '[TOOL_CALLS][{{"name": "now", "arguments": {}}}]',
    "deepseek": "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    "harmony": "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>",
    "llama3": '{{"name": "now", "parameters": {}}}',
}


def cut(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(min(place, len(text)) for place in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("name", WRITERS)
@given(arguments=st.dictionaries(TEXTS, VALUES, max_size=4), is_ascii=st.booleans(), cuts=CUTS)
def test_any_arguments_come_back(
    name: str, arguments: dict[str, Any], is_ascii: bool, cuts: list[int]
) -> None:
    written = json.dumps(arguments, ensure_ascii=is_ascii)
    text = WRITERS[name].format(written)
    sample = Sample(name, text, ParsedAnswer(calls=(call("now", written),)))
    assert answer(sample.parser(), *cut(text, cuts)) == sample.answer


@given(city=TEXTS, text=TEXTS, days=st.integers(), hours=st.lists(VALUES), cuts=CUTS)
def test_any_tagged_arguments_come_back(
    city: str, text: str, days: int, hours: list[Any], cuts: list[int]
) -> None:
    values = {"city": city, "days": days, "hours": hours, "unknown": text}
    written = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n"
        for key, value in {**values, "hours": json.dumps(hours)}.items()
    )
    assume(written.count("</parameter>") == len(values))  # tags have no way to quote themselves
    sample = SAMPLES["qwen3-coder"]
    whole = f"<tool_call>\n<function=get_weather>\n{written}</function>\n</tool_call>"
    parsed = answer(sample.parser(TOOLS), *cut(whole, cuts))
    assert [json.loads(made.arguments) for made in parsed.calls] == [values]
    assert (parsed.content, parsed.reasoning) == ("", "")
