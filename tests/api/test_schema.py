"""What a body may say, and how a refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import completion_create_params

from millstream.api.openai.schema import UNSUPPORTED, ChatRequest, parse_chat_request
from millstream.errors import InvalidRequest

HELLO = [{"role": "user", "content": "hello"}]


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request({"messages": HELLO, **fields})


def test_every_field_of_the_sdk_is_accepted_or_refused_by_name() -> None:
    """A new field of the OpenAI API shows here, so it is never `unknown` to us."""
    known = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    ours = set(ChatRequest.model_fields) - {"top_k"}
    assert ours <= known
    assert known - ours == set(UNSUPPORTED)


@pytest.mark.parametrize("field", sorted(UNSUPPORTED))
def test_unsupported_fields_are_named(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**{field: "something"})
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")
    parse(**{field: None})


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"logprobs": False},
        {"presence_penalty": 0},
        {"frequency_penalty": 0.0},
        {"logit_bias": {}},
        {"tools": []},
        {"response_format": {"type": "text"}},
    ],
)
def test_values_that_change_nothing_are_accepted(fields: dict[str, Any]) -> None:
    parse(**fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": True}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
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
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param


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
    assert user["content"] == "a\nb"
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert (tool["content"], tool["tool_call_id"]) == ("2", "c1")


def test_arguments_of_an_earlier_call_must_be_json() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    request = parse(messages=[{"role": "assistant", "content": "", "tool_calls": [call]}])
    with pytest.raises(InvalidRequest, match="arguments of tool call f"):
        request.messages[0].to_template()


def test_stop_is_a_string_or_a_list() -> None:
    assert parse(stop="END").stops == ("END",)
    assert parse(stop=["a", "b"]).stops == ("a", "b")
    assert parse().stops == ()
