"""Reasoning and tool calls over a fake engine that says what it is told to say."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.settings import Settings
from millstream.text.parsing.call_families import CALL_FAMILIES
from millstream.text.parsing.detection import detect, special_tokens_of
from millstream.text.parsing.reasoning_formats import REASONING_FORMATS
from tests.api.talk import Talk, joined, marked_tokenizer, talk, whole
from tests.text.parsing.samples import SAMPLES, TOOLS, Sample, choose

__all__ = ["marked_tokenizer", "talk"]

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
THOUGHT = "<think>\nHm.\n</think>\n\n"


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
async def test_every_format_streamed_and_whole(sample: Sample, talk: Talk) -> None:
    special = special_tokens_of(talk.tokenizer)
    talk.parsers = detect("", special, reasoning=sample.reasoning, tools=sample.tools)
    prompt = [{"role": "user", "content": "x" + sample.started}]
    answer = await talk.both(sample.text, messages=prompt)
    assert answer.content == sample.answer.content
    assert answer.reasoning == sample.answer.reasoning
    assert answer.calls == [(call.name, call.arguments) for call in sample.answer.calls]
    assert answer.finish_reason == ("tool_calls" if answer.calls else "stop")
    assert talk.template.tools == TOOLS


async def test_an_answer_that_is_cut_off(talk: Talk) -> None:
    answer = await talk.both(CALL, max_tokens=60)
    ((name, arguments),) = answer.calls
    assert (name, answer.finish_reason) == ("get_weather", "length")
    assert '{"city": "Paris"}'.startswith(arguments) != (arguments == '{"city": "Paris"}')
    answer = await talk.both(THOUGHT, max_tokens=9)
    assert (answer.content, answer.reasoning, answer.calls) == ("", "H", [])
    assert answer.finish_reason == "length"


async def test_without_tools_calls_are_text_and_reasoning_is_not(talk: Talk) -> None:
    for fields in ({"tools": None}, {"tools": []}, {"tool_choice": "none"}):
        answer = await talk.both(THOUGHT + CALL, **fields)
        assert (answer.content, answer.reasoning, answer.calls) == (CALL, "Hm.", [])
        assert answer.finish_reason == "stop"
        assert talk.template.tools is None


async def test_special_tokens_on_request_means_the_text_as_it_is(talk: Talk) -> None:
    answer = await talk.both(THOUGHT + "<junk>ok", tools=None, skip_special_tokens=False)
    assert (answer.content, answer.reasoning) == (THOUGHT + "<junk>ok", "")


async def test_a_call_that_names_no_offered_tool_is_a_call(talk: Talk) -> None:
    unknown = CALL.replace("get_weather", "delete_everything")
    answer = await talk.both(THOUGHT + unknown + "\n" + NOW)
    assert answer.calls == [("delete_everything", '{"city": "Paris"}'), ("now", "{}")]
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")
    answer = await talk.both(unknown, tool_choice="none")
    assert (answer.content, answer.calls) == (unknown, [])
    talk.parsers = choose("think", "llama3")
    text = '{"name": "Bob", "parameters": {"age": 3}}'
    answer = await talk.both(text)
    assert (answer.content, answer.calls) == (text, []), "any JSON could be meant"


async def test_reasoning_that_nobody_wants_is_not_shown(talk: Talk) -> None:
    for fields in ({"tools": None}, {}, {"tools": None, "logprobs": True, "top_logprobs": 1}):
        answer = await talk.both(THOUGHT + "Yes.", include_reasoning=False, **fields)
        assert (answer.content, answer.reasoning) == ("Yes.", "")
    answer = await talk.both(THOUGHT + CALL, include_reasoning=False)
    assert (answer.reasoning, len(answer.calls)) == ("", 1)
    answer = await talk.both(THOUGHT + "Yes.", include_reasoning=True)
    assert (answer.content, answer.reasoning) == ("Yes.", "Hm.")
    param = await talk.refused(include_reasoning=False, skip_special_tokens=False, tools=None)
    assert param == "include_reasoning"


async def test_a_format_from_the_first_token_is_not_searched(talk: Talk) -> None:
    answer = await talk.both('["<think>"]', tools=None, guided_json={"type": "array"})
    assert (answer.content, answer.reasoning) == ('["<think>"]', "")


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": ["path"]},
        {"properties": {"path": 5}},
        {"properties": {"path": {"type": None}}},
        {"properties": {"path": {"type": [{}, 5, "string"], "anyOf": 5, "oneOf": [None]}}},
    ],
)
async def test_a_schema_that_is_none_tells_nothing(parameters: Any, talk: Talk) -> None:
    talk.parsers = choose("none", "qwen3-coder")
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    text = "<tool_call><function=f><parameter=path>7</parameter></function></tool_call>"
    answer = await talk.both(text, tools=tools)
    assert answer.calls == [("f", '{"path": "7"}')]


def test_the_options_name_every_format() -> None:
    for name, formats in (
        ("tool_call_parser", CALL_FAMILIES),
        ("reasoning_parser", REASONING_FORMATS),
    ):
        help_text = Settings.model_fields[name].description
        assert help_text is not None
        named = help_text.split(": ")[1].split(", ")
        assert sorted(named) == sorted(["auto", "none", *(one.name for one in formats)])


async def test_one_call_only(talk: Talk) -> None:
    text = f"Look.\n{CALL}\n{NOW}\nDone."
    answer = await talk.both(text)
    assert [name for name, _ in answer.calls] == ["get_weather", "now"]
    answer = await talk.both(text, parallel_tool_calls=False)
    assert answer.calls == [("get_weather", '{"city": "Paris"}')]
    assert (answer.content, answer.finish_reason) == ("Look.", "tool_calls")
    answer = await talk.both(THOUGHT + "No.", parallel_tool_calls=False)
    assert (answer.content, answer.finish_reason) == ("No.", "stop")


async def test_each_answer_has_its_own_parser(talk: Talk) -> None:
    talk.speaker.say(CALL, THOUGHT + "Hi.", NOW + "\n" + CALL)
    body = await talk.body(n=3)
    answers = [whole(choice) for choice in body["choices"]]
    assert [answer.finish_reason for answer in answers] == ["tool_calls", "stop", "tool_calls"]
    assert [len(answer.calls) for answer in answers] == [1, 0, 2]
    assert (answers[1].content, answers[1].reasoning) == ("Hi.", "Hm.")
    ids = [
        call["id"] for choice in body["choices"] for call in choice["message"].get("tool_calls", [])
    ]
    assert len(set(ids)) == 3
    talk.speaker.say(CALL, THOUGHT + "Hi.", NOW + "\n" + CALL)
    events = await talk.events(n=3)
    assert [joined(events, index) for index in range(3)] == answers


async def test_stop_strings_are_looked_for_in_the_text_as_written(talk: Talk) -> None:
    answer = await talk.both(CALL, stop="ris")
    assert answer.calls == [("get_weather", '{"city": "Pa')]
    assert answer.finish_reason == "tool_calls"
    answer = await talk.both(THOUGHT + "Yes.", stop="</think>")
    assert (answer.content, answer.reasoning, answer.finish_reason) == ("", "Hm.\n", "stop")


async def test_scores_and_token_ids_are_those_of_the_text_as_written(talk: Talk) -> None:
    text = THOUGHT + "I look: é.\n" + CALL
    answer = await talk.both(text, logprobs=True, return_token_ids=True)
    assert "".join(entry["token"] for entry in answer.logprobs) == text
    assert len(answer.token_ids) == len(answer.logprobs) + 1


async def test_usage_in_every_event(talk: Talk) -> None:
    talk.speaker.say(THOUGHT + CALL)
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await talk.events(stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[0] == 0, "the event with the role has no token"
    assert events[-1]["choices"] == []
    talk.speaker.say(THOUGHT + CALL)
    assert counts[-1] == (await talk.body())["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("text", "fields", "before"),
    [
        (THOUGHT + "Yes.", {}, "<think>\nHm."),
        (THOUGHT + CALL, {}, "<think>\nHm."),
        (THOUGHT + "Yes.", {"include_reasoning": False}, "<think>\nHm."),
        (THOUGHT + "Yes.", {"max_tokens": 10}, "<think>\nHm"),
        (THOUGHT + "Yes.", {"n": 2}, ("<think>\nHm.", "<think>\nHm.")),
        ("Yes.", {}, ""),
        (THOUGHT + "Yes.", {"skip_special_tokens": False, "tools": None}, ""),
    ],
)
async def test_tokens_of_reasoning_are_counted(
    text: str, fields: dict[str, Any], before: str | tuple[str, ...], talk: Talk
) -> None:
    """before: what the model said up to the end of its thoughts."""
    texts = (before,) if isinstance(before, str) else before
    expected = sum(len(talk.tokenizer.encode(text).ids) for text in texts)
    talk.speaker.say(text)
    usage = (await talk.body(**fields))["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": expected}
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await talk.events(stream_options=options, **fields)
    assert events[-1]["usage"] == usage
    counts = [one["usage"]["completion_tokens_details"]["reasoning_tokens"] for one in events]
    assert counts == sorted(counts)
    assert counts[0] == 0


async def test_markers_that_are_special_tokens_are_read(talk: Talk) -> None:
    talk.parsers = detect("", special_tokens_of(talk.tokenizer), tools="mistral")
    assert talk.parsers.visible == {"[TOOL_CALLS]"}
    text = 'So<junk>[TOOL_CALLS][{"name": "now", "arguments": {}}]'
    answer = await talk.both(text)
    assert (answer.content, answer.calls) == ("So", [("now", "{}")])


async def test_a_model_that_cannot_call_is_offered_no_tools(talk: Talk) -> None:
    talk.parsers = choose("think", "none")
    for stream in (False, True):
        assert await talk.refused(stream=stream) == "tools"
    talk.speaker.say("Hi.")
    await talk.body(tools=None)


async def test_a_template_without_tools_is_offered_none(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk.chat, "_source", "{{ messages }}")
    assert await talk.refused() == "tools"
