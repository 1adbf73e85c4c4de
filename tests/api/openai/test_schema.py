"""What a body may say, and how a refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import completion_create_params

from millstream.errors import InvalidRequest
from millstream.intake.fields.unsupported import NEUTRAL, UNSUPPORTED
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request

HELLO = [{"role": "user", "content": "hello"}]


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request({"messages": HELLO, **fields})


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.status == 400
    return caught.value


def test_every_field_of_the_sdk_is_accepted_or_refused_by_name() -> None:
    """A new field of the OpenAI API shows here, so it is never `unknown` to us."""
    known = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert known <= set(ChatRequest.model_fields) | UNSUPPORTED


def test_no_field_is_both_accepted_and_refused() -> None:
    assert not UNSUPPORTED & set(ChatRequest.model_fields)
    assert set(NEUTRAL) <= UNSUPPORTED


@pytest.mark.parametrize("field", sorted(UNSUPPORTED))
def test_unsupported_fields_are_named(field: str) -> None:
    error = refusal(**{field: "something"})
    assert (error.param, error.code) == (field, "unsupported_parameter")
    parse(**{field: None})


def test_unknown_fields_are_named() -> None:
    error = refusal(colour="red")
    assert (error.param, error.code) == ("colour", "unknown_parameter")


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in NEUTRAL.items() for value in values]
)
def test_values_that_change_nothing_are_accepted(field: str, value: Any) -> None:
    parse(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("store", 0), ("best_of", True), ("echo", 0)])
def test_a_truth_value_is_no_number(field: str, value: Any) -> None:
    assert refusal(**{field: value}).param == field


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"max_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"max_completion_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ({"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "text"}]}]},
            "messages[1].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_refusals_name_the_place(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


def test_stream_options() -> None:
    request = parse(
        stream=True,
        stream_options={
            "include_usage": True,
            "continuous_usage_stats": True,
            "include_obfuscation": False,
        },
    )
    assert request.include_usage
    assert request.include_running_usage
    assert not parse(stream=True, stream_options=None).include_usage


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        ([*HELLO, {"role": "assistant", "content": "I am"}], {"add_generation_prompt": True}),
        ([*HELLO, {"role": "assistant", "content": ""}], {}),
        ([{"role": "assistant", "content": "I am"}, *HELLO], {}),
    ],
)
def test_only_text_of_the_assistant_can_be_continued(
    messages: list[Any], more: dict[str, Any]
) -> None:
    error = refusal(messages=messages, continue_final_message=True, **more)
    assert error.param == "continue_final_message"
    prefill = [*HELLO, {"role": "assistant", "content": "I am"}]
    parse(messages=prefill, continue_final_message=True, add_generation_prompt=False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
        ({"top_logprobs": 0}, None),
    ],
)
def test_number_of_alternatives(fields: dict[str, Any], expected: int | None) -> None:
    assert parse(**fields).num_logprobs == expected


def test_all_roles_reach_the_template() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    request = parse(
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
        ]
    )
    system, user, assistant, tool = (message.to_template() for message in request.messages)
    assert system == {"role": "system", "content": "be brief"}
    assert user["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert assistant["content"] is None
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert (tool["content"], tool["tool_call_id"]) == ("2", "c1")


@pytest.mark.parametrize(
    ("sent", "expected"), [("{", "{"), (None, ""), ({"a": "ø"}, '{"a": "ø"}'), ("", "")]
)
def test_arguments_of_an_earlier_call_are_taken_as_they_are(sent: Any, expected: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": sent}}
    request = parse(messages=[{"role": "assistant", "content": "", "tool_calls": [call]}])
    said = request.messages[0].to_template()
    assert said["tool_calls"][0]["function"]["arguments"] == expected


@pytest.mark.parametrize("sent", [1, [], True])
def test_arguments_of_another_type_are_refused_by_name(sent: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": sent}}
    with pytest.raises(InvalidRequest) as caught:
        parse(messages=[{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": []},
        {"role": "system"},
        {"role": "developer", "content": None},
        {"role": "tool", "tool_call_id": "c1"},
        {"role": "assistant"},
        {"role": "assistant", "tool_calls": []},
    ],
)
def test_a_message_without_content_is_refused_by_name(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(messages=[{"role": "user", "content": "hi"}, message])
    assert caught.value.param == "messages[1].content"


def test_an_assistant_may_have_said_nothing() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for said in ({"content": None}, {"content": ""}, {"tool_calls": [call]}, {"reasoning": "x"}):
        parse(messages=[{"role": "assistant"} | said])


def test_stop_is_a_string_or_a_list() -> None:
    assert parse(stop="END").stops == ("END",)
    assert parse(stop=["a", "b"]).stops == ("a", "b")
    assert parse().stops == ()


def test_what_sdks_add_to_messages_that_they_echo() -> None:
    call = {
        "id": "call00001",
        "type": "function",
        "function": {
            "name": "f",
            "arguments": '{"a": 1}',
            "parsed_arguments": {"a": 1},
            "description": None,
        },
    }
    echoed = {"role": "assistant", "content": None, "parsed": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call00001", "content": "2"}
    request = parse(messages=[{"role": "user", "content": "f"}, echoed, result])
    said = request.messages[1].to_template()
    assert said["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert "parsed" not in said
