"""Items and events made of deltas, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from tokenizers import Tokenizer

from millstream.api.openai.responses.builder import OutputBuilder
from millstream.api.openai.responses.event_shapes import ResponseEvent
from millstream.api.openai.responses.items import ItemStatus
from millstream.api.openai.responses.recovery import event_of, output_of
from millstream.core.request import TokenLogprob
from millstream.intake.responses.sealed_text import decode_reasoning
from millstream.intake.responses.tools import ToolNames, ToolOrigin
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
    join,
)
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary

SHAPE: TypeAdapter[Any] = TypeAdapter(ResponseEvent)
OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
NAMES = ToolNames(
    {
        "look_up": ToolOrigin("function", "look_up"),
        "close": ToolOrigin("function", "close", "agents"),
        "apply_patch": ToolOrigin("custom", "apply_patch"),
    }
)


def builder(**options: Any) -> OutputBuilder:
    return OutputBuilder("resp_0123abcd", tools=NAMES, **options)


def play(
    made: OutputBuilder, *parts: Delta, status: ItemStatus = "completed"
) -> list[dict[str, Any]]:
    """The events of an answer of these parts."""
    frames: list[bytes] = []
    for part in parts:
        frames += made.push(TextDelta("", parts=(part,)))
    return [event_of(frame) for frame in [*frames, *made.close(status)]]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_a_message_with_one_part() -> None:
    made = builder()
    events = play(made, Content("Hel"), Content("lo"))
    assert kinds(events) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert events[0]["item"]["content"] == []
    assert events[1]["part"] == {
        "type": "output_text",
        "text": "",
        "annotations": [],
        "logprobs": [],
    }
    assert [event["delta"] for event in events[2:4]] == ["Hel", "lo"]
    assert events[4]["text"] == "Hello"
    (item,) = made.output()
    assert item["status"] == "completed"
    assert item["content"][0]["text"] == "Hello"
    assert events[6]["item"] == item


def test_unparsed_text_is_a_message_too() -> None:
    made = builder()
    made.push(TextDelta("one"))
    made.push(TextDelta(" two"))
    made.close("completed")
    assert made.output()[0]["content"][0]["text"] == "one two"


def test_each_token_of_a_text_has_its_score_and_no_other_token_has(
    byte_tokenizer: Tokenizer,
) -> None:
    """Parsers hold text back that may be the beginning of something else."""

    def scored(*texts: str) -> tuple[TextLogprob, ...]:
        return tuple(
            TextLogprob(text, text.encode(), TokenLogprob(1, -0.5, 1, ())) for text in texts
        )

    made = builder(vocabulary=Vocabulary(byte_tokenizer))
    frames = [
        *made.push(TextDelta("hm", logprobs=scored("hm"), parts=(Reasoning("hm"),))),
        *made.push(TextDelta("</think>", logprobs=scored("</think>"), parts=())),
        *made.push(TextDelta("\n\n1", logprobs=scored("\n", "\n", "1"), parts=(Content("1"),))),
        *made.push(TextDelta("\n", logprobs=scored("\n"), parts=())),
        *made.push(TextDelta("é", logprobs=scored("", "é"), parts=(Content("\né"),))),
        *made.push(TextDelta("<", logprobs=scored("<"), parts=())),
        *made.push(TextDelta("c", logprobs=scored("c"), parts=(ToolCallStart(0, "look_up"),))),
        *made.close("completed"),
    ]
    deltas = [event for frame in frames if "logprobs" in (event := event_of(frame))]
    deltas = [event for event in deltas if event["type"].endswith("text.delta")]
    tokens = [[each["token"] for each in event["logprobs"]] for event in deltas]
    assert tokens == [["1"], ["\n", "", "é"]]
    part = made.output()[1]["content"][0]
    assert [each["token"] for each in part["logprobs"]] == ["1", "\n", "", "é"]


def test_events_are_numbered_and_the_number_is_the_id_of_the_event() -> None:
    made = builder()
    frames = [*made.push(TextDelta("a")), *made.push(TextDelta("\u2028")), *made.close("completed")]
    for number, frame in enumerate(frames):
        head, name, data, *rest = frame.decode("ascii").split("\n")
        assert head == f"id: {number}"
        assert rest == ["", ""]
        event = json.loads(data.removeprefix("data: "))
        assert event["sequence_number"] == number
        assert name == f"event: {event['type']}"


def test_thoughts_text_and_calls_are_items_that_do_not_overlap() -> None:
    made = builder()
    events = play(
        made,
        Reasoning("hm"),
        Content("\n\n"),
        Content("So: "),
        ToolCallStart(0, "look_up"),
        ToolCallArguments(0, '{"a":'),
        ToolCallArguments(0, "1}"),
        Content("\n"),
        ToolCallStart(1, "close"),
        ToolCallArguments(1, "{}"),
    )
    assert [item["type"] for item in made.output()] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    thought, said, first, second = made.output()
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert said["content"][0]["text"] == "\n\nSo: "
    assert (first["name"], first["arguments"], "namespace" in first) == (
        "look_up",
        '{"a":1}',
        False,
    )
    assert (second["name"], second["namespace"]) == ("close", "agents")
    assert first["call_id"] != second["call_id"]
    opened = [e["output_index"] for e in events if e["type"] == "response.output_item.added"]
    closed = [e["output_index"] for e in events if e["type"] == "response.output_item.done"]
    assert opened == closed == [0, 1, 2, 3]
    numbers = [event["output_index"] for event in events]
    assert numbers == sorted(numbers)


def test_a_custom_call_has_the_text_that_was_its_argument() -> None:
    made = builder()
    events = play(
        made,
        ToolCallStart(0, "apply_patch"),
        ToolCallArguments(0, '{"input": "*** Begin'),
        ToolCallArguments(0, ' Patch\\n"}'),
    )
    assert kinds(events) == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    (item,) = made.output()
    assert item["type"] == "custom_tool_call"
    assert item["input"] == events[1]["delta"] == events[2]["input"] == "*** Begin Patch\n"


@pytest.mark.parametrize("written", ['{"input": 3}', '{"other": "x"}', "[]", '{"input": "cut'])
def test_a_custom_call_that_is_written_otherwise_is_shown_as_it_is(written: str) -> None:
    made = builder()
    play(made, ToolCallStart(0, "apply_patch"), ToolCallArguments(0, written))
    assert made.output()[0]["input"] == written


def test_an_answer_that_says_nothing_is_an_empty_text() -> None:
    made = builder()
    play(made)
    (item,) = made.output()
    assert item["content"][0]["text"] == ""


def test_what_is_cut_is_incomplete_and_what_came_before_is_not() -> None:
    made = builder()
    play(made, Reasoning("a"), Content("b"), status="incomplete")
    assert [item["status"] for item in made.output()] == ["completed", "incomplete"]


def test_thoughts_can_be_asked_for_once_more_for_clients_that_keep_nothing_else() -> None:
    made = builder(encodes_reasoning=True)
    events = play(made, Reasoning("deep"), Content("b"))
    assert events[0]["item"]["encrypted_content"] is None
    assert decode_reasoning(made.output()[0]["encrypted_content"]) == "deep"
    assert builder().push(TextDelta("", parts=(Reasoning("x"),)))


def answers() -> st.SearchStrategy[list[Delta]]:
    """Answers as parsers make them: calls one after the other, each with its start first."""
    words = st.text(alphabet='ab \n\u00e9\u2028\U0001f600"\\', min_size=1, max_size=6)
    names = st.sampled_from([*NAMES.origins, "unknown"])
    call = st.tuples(names, st.lists(words, max_size=3))
    part = words.map(Content) | words.map(Reasoning) | call

    def numbered(parts: list[Any]) -> list[Delta]:
        deltas: list[Delta] = []
        number = 0
        for one in parts:
            if isinstance(one, tuple):
                deltas.append(ToolCallStart(number, one[0]))
                deltas += [ToolCallArguments(number, text) for text in one[1]]
                number += 1
            else:
                deltas.append(one)
        return deltas

    return st.lists(part, max_size=8).map(numbered)


@given(answers(), st.sampled_from(["completed", "incomplete"]))
def test_events_add_up_to_the_output_and_have_their_shapes(
    parts: list[Delta], status: ItemStatus
) -> None:
    made = builder(encodes_reasoning=True)
    events = play(made, *parts, status=status)
    for event in events:
        SHAPE.validate_python(event)
        OFFICIAL.validate_python(event)
    assert output_of(events) == made.output()
    said = join(parts)
    texts = [item["content"][0]["text"] for item in made.output() if item["type"] == "message"]
    assert "".join("".join(texts).split()) == "".join(said.content.split())
    calls = [item for item in made.output() if "call_id" in item]
    assert len(calls) == len(said.calls)


@given(answers(), st.integers(0, 40))
def test_events_that_break_off_add_up_to_what_was_said_until_then(
    parts: list[Delta], num_events: int
) -> None:
    made = builder()
    frames: list[bytes] = []
    for part in parts:
        if len(frames) >= num_events:
            break
        frames += made.push(TextDelta("", parts=(part,)))
    expected = made.output()
    for item in expected:
        if item.get("status") == "in_progress":
            item["status"] = "incomplete"
    recovered = output_of([event_of(frame) for frame in frames])
    for item in [*expected, *recovered]:
        if item["type"] == "custom_tool_call":
            item["input"] = ""  # comes in one piece when it is complete
    assert recovered == expected
