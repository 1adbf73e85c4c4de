"""Fields of the body: what they come to, what the answer repeats, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.intake.responses.chat_of_response import chat_of_response
from millstream.intake.responses.request import parse_response_request
from tests.intake.responses.bodies import ANSWERED, CODEX, EXEC, OUTPUT, chat_of, parsed

FORMAT = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}


def test_fields_for_sampling_are_those_of_chat() -> None:
    sent = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["x"],
        "stop_token_ids": [1],
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {"1": 2.0},
        "min_tokens": 2,
        "ignore_eos": True,
        "priority": 3,
        "cache_salt": "s",
        "timeout": 4.0,
        "chat_template_kwargs": {"a": 1},
        "parallel_tool_calls": False,
        "stream": True,
    }
    chat = chat_of(**sent).chat
    assert {name: getattr(chat, name) for name in sent} == sent


def test_fields_that_have_another_name_in_chat() -> None:
    chat = chat_of(
        max_output_tokens=9.0,
        text={"format": FORMAT, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        include=["message.output_text.logprobs"],
        top_logprobs=3,
    ).chat
    assert chat.wanted_tokens == 9
    assert chat.wanted_format is not None
    assert (chat.wanted_format.value, chat.wanted_format.is_strict) == ({"type": "object"}, True)
    assert chat.wanted_effort == "low"
    assert chat.num_logprobs == 3
    assert chat_of().chat.num_logprobs is None
    assert chat_of(include=["message.output_text.logprobs"]).chat.num_logprobs == 0


def test_an_answer_of_the_assistant_is_not_continued() -> None:
    items = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert not chat_of(input=items).chat.is_continued


@pytest.mark.parametrize("given", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_named_in_two_ways(given: Any) -> None:
    request = parsed(conversation=given)
    assert request.conversation_id == "conv_1"
    assert request.echo()["conversation"] == {"id": "conv_1"}


def test_what_the_answer_repeats_by_default() -> None:
    assert parsed().echo() == {
        "background": False,
        "conversation": None,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }


def test_what_the_answer_repeats_of_what_was_sent() -> None:
    tool = {"type": "function", "name": "f"}
    echo = parsed(
        **{**CODEX, "tools": [tool, *CODEX["tools"]]},
        temperature=0,
        metadata={"a": "b"},
        text={"format": {key: value for key, value in FORMAT.items() if key != "strict"}},
    ).echo()
    assert echo["temperature"] == 0
    assert echo["metadata"] == {"a": "b"}
    assert echo["prompt_cache_key"] == "0b1c"
    assert echo["reasoning"] == {"effort": None, "summary": "auto"}
    assert echo["store"] is False
    assert echo["tools"][0] == {**tool, "description": None, "parameters": None, "strict": False}
    assert echo["tools"][1] == EXEC
    assert echo["tools"][2:] == CODEX["tools"][1:]
    assert echo["text"]["format"] == {**FORMAT, "description": None, "strict": False}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"no_such": 1}, "no_such"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"instructions": 3}, "instructions"),
        ({"previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"conversation": {"id": 1}}, "conversation.id"),
        ({"background": True, "store": False}, "background"),
        ({"stream_options": {}}, "stream_options"),
        (
            {"stream": True, "stream_options": {"include_usage": True}},
            "stream_options.include_usage",
        ),
        ({"include": ["no"]}, "include[0]"),
        ({"include": "no"}, "include"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"text": {"format": {"type": "no"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.json_schema"),
        ({"text": {"format": {**FORMAT, "schema": 3}}}, "text.format.schema"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"text": 3}, "text"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": []}, "reasoning"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1, "min_tokens": 2}, "min_tokens"),
        ({"truncation": "no"}, "truncation"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"service_tier": "best"}, "service_tier"),
        ({"client_metadata": "x"}, "client_metadata"),
        ({"tools": {}}, "tools"),
        ({"tools": [EXEC], "skip_special_tokens": False}, "skip_special_tokens"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        chat_of(**fields)
    assert refusal.value.param == path
    assert refusal.value.message.startswith(path.split(".")[0].split("[")[0])


def test_what_a_conversation_brings_is_enough() -> None:
    items = parsed().items
    for past in ({"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
        assert len(chat_of(input=None, **past, context=items).chat.messages) == 1


@pytest.mark.parametrize(
    ("param", "path"),
    [
        ("messages[0].content", "instructions"),
        ("messages[1].content", "previous_response_id.content"),
        ("messages[2].content", "input[0].content"),
        ("messages[2].tool_calls[0].function.arguments", "input[2].arguments"),
        ("messages[3].content", "input[3].output"),
        ("messages", "input"),
        ("tools[1].parameters", "tools[1].tools[0].parameters"),
        ("response_format.schema", "text.format.schema"),
        ("reasoning_effort", "reasoning.effort"),
        ("max_tokens", "max_output_tokens"),
        ("stop_token_ids", "stop_token_ids"),
    ],
)
def test_what_is_refused_later_is_named_as_it_was_sent(param: str, path: str) -> None:
    fields = {"tools": CODEX["tools"], "input": [*ANSWERED, OUTPUT], "instructions": "Be kind."}
    made = chat_of(**fields, previous_response_id="resp_1", context=parsed().items)
    error = ContextTooLong(f"{param}: it is so", param=param, num_tokens=7)
    told = made.in_words_of_responses(error)
    assert isinstance(told, ContextTooLong)
    assert told.num_tokens == 7
    assert str(told) == told.message
    assert (type(told), told.param, told.message) == (ContextTooLong, path, f"{path}: it is so")
    assert told.code == "context_length_exceeded"


WORDS = "message function auto conv_1 user"
MEMBERS = (
    "type role content text id call_id name arguments output tools format mode input summary "
    "namespace encrypted_content"
)
FIELDS = (
    "input tools tool_choice text reasoning conversation include metadata instructions stream "
    "stream_options store background user other max_output_tokens temperature logit_bias "
    "client_metadata truncation"
)
KINDS = (
    "message function_call function_call_output custom_tool_call custom_tool_call_output "
    "reasoning item_reference compaction additional_tools"
)
TEXTS = st.sampled_from(["", "x", "\ud800", *WORDS.split()])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(MEMBERS.split()), inner, max_size=5)
    ),
    max_leaves=12,
)
NAMES, TYPES = st.sampled_from(FIELDS.split()), st.sampled_from(KINDS.split())
KEYS = {"call_id": "c", "name": "f", "arguments": "{}", "input": "x", "output": "y", "role": "user"}
ITEMS = st.builds(
    lambda kind, more: {"type": kind, **KEYS, **more}, TYPES, st.dictionaries(TEXTS, VALUES)
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.lists(ITEMS | VALUES, max_size=4))
def test_no_body_gives_anything_but_a_request_or_a_refusal(
    body: dict[str, Any], items: list[Any]
) -> None:
    try:
        request = parse_response_request({"input": items, **body})
        chat_of_response(request, request.items, ())
        request.echo()
    except InvalidRequest as error:
        refusal = error
    else:
        return
    assert refusal.param
    assert refusal.status == 400
