"""Every field of a chat request: values that are right, and wrong ones that are named."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request

HELLO = [{"role": "user", "content": "hello"}]

GOOD: dict[str, list[Any]] = {
    "max_tokens": [1, 10**9],
    "max_completion_tokens": [1],
    "temperature": [0, 2, 0.7],
    "top_p": [1, 1e-9],
    "top_k": [-1, 0, 50],
    "min_p": [0, 0.05, 1],
    "typical_p": [0.2, 1],
    "repetition_penalty": [0.01, 1, 1.3, 100],
    "frequency_penalty": [-2, 0, 2],
    "presence_penalty": [-2, 0.5, 2],
    "logit_bias": [{}, {"0": -100}, {"50256": 100, "7": 0.5}],
    "bad_words": [[], ["word", " two words"]],
    "allowed_token_ids": [[0], [3, 1, 3]],
    "seed": [-(2**63), 0, 2**64 - 1],
    "n": [1, 128],
    "stop": ["END", [], ["a", "b"]],
    "stop_token_ids": [[], [0, 5]],
    "include_stop_str_in_output": [True, False],
    "ignore_eos": [True, False],
    "min_tokens": [0, 5],
    "skip_special_tokens": [True, False],
    "prompt_logprobs": [0, 20],
    "return_token_ids": [True, False],
    "model": ["dummy"],
    "logprobs": [True, False],
    "top_logprobs": [0],
    "stream": [True, False],
    "add_generation_prompt": [True, False],
    "continue_final_message": [False],
    "chat_template_kwargs": [{}, {"enable_thinking": False}],
    "reasoning_effort": ["none", "low", "high"],
    "priority": [-(2**31), 0, 2**31 - 1],
    "cache_salt": ["x", "x" * 256],
    "timeout": [0.001, 60, 86_400],
    "user": ["somebody"],
    "safety_identifier": ["x"],
    "prompt_cache_key": ["x"],
    "metadata": [{}, {"k": "v"}],
    "tool_choice": ["none", "auto"],
    "parallel_tool_calls": [True, False],
    "guided_json": [{"type": "object"}, '{"type": "object"}'],
    "guided_regex": ["a+"],
    "guided_choice": [["yes"], ["x"] * 1024],
    "guided_grammar": ['start: "a"'],
    "grammar": ["", 'root ::= "a"'],
    "json_schema": [{}, "{}"],
    "regex": ["a+"],
    "ebnf": ['root ::= "a"'],
    "include_reasoning": [True, False],
}
"""Of every field but those with members of their own, which have tests of their own."""

OTHERS = {
    "messages",
    "reasoning",
    "stream_options",
    "response_format",
    "structured_outputs",
    "tools",
    "usage",
}

BAD: dict[str, list[Any]] = {
    "max_tokens": [0, -1, 1.5, "8", True],
    "max_completion_tokens": [0, 1.5],
    "temperature": [-0.1, 2.1, "1", True, [1]],
    "top_p": [0, 1.1, "1"],
    "top_k": [-2, 1.5, "5"],
    "min_p": [-0.1, 1.1, True],
    "typical_p": [0, 1.1],
    "repetition_penalty": [0, -1, 101, "1"],
    "frequency_penalty": [-2.1, 2.1, "0"],
    "presence_penalty": [-2.1, 2.1, False],
    "logit_bias": [
        {"a": 1},
        {"-1": 1},
        {"05": 1},
        {"1.0": 1},
        {"5": 101},
        {"5": -101},
        {"5": "1"},
        {"5": None},
        [[5, 1]],
        {str(token): 1 for token in range(1025)},
    ],
    "bad_words": ["word", [""], [5], ["x"] * 129],
    "allowed_token_ids": [[], [-1], [1.5], ["1"], 5],
    "seed": [2**64, -(2**63) - 1, 1.5, "x"],
    "n": [0, -1, 129, 10**12, 1.5, True],
    "stop": ["", ["a", ""], ["a"] * 17, 5, "x" * 1001],
    "stop_token_ids": [[-1], 5, ["5"], [1] * 129],
    "include_stop_str_in_output": [0, "yes"],
    "ignore_eos": [1],
    "min_tokens": [-1, 1.5],
    "skip_special_tokens": [0],
    "prompt_logprobs": [-1, 21, True],
    "return_token_ids": [1],
    "model": [5],
    "logprobs": [0, 5, "true"],
    "top_logprobs": [-1, 21, 10**6, True],
    "stream": ["yes", 1],
    "add_generation_prompt": ["no"],
    "continue_final_message": [1],
    "chat_template_kwargs": [[], "x"],
    "reasoning_effort": ["very", 5],
    "priority": [1.5, 2**31, True],
    "cache_salt": ["", "x" * 257, 5],
    "timeout": [0, -1, 86_401, "60"],
    "user": [5],
    "safety_identifier": [5, "x" * 513],
    "prompt_cache_key": [5],
    "guided_json": [[], 5, True],
    "guided_regex": ["", 5],
    "guided_choice": [[], "yes", [""], [5], ["x"] * 1025],
    "guided_grammar": ["", 5],
    "grammar": [5, []],
    "json_schema": [[], 5],
    "regex": ["", 5],
    "ebnf": ["", 5],
    "include_reasoning": [0, "no"],
    "tool_choice": ["required", "f", ""],
    "parallel_tool_calls": [0, "yes"],
    "metadata": [{"k": 5}, {"k" * 65: "v"}, {str(i): "v" for i in range(17)}, "x"],
}


def parse(field: str, value: Any) -> ChatRequest:
    return parse_chat_request({"messages": HELLO, field: value})


def test_every_field_has_its_values_tested() -> None:
    assert set(GOOD) == set(BAD) == set(ChatRequest.model_fields) - OTHERS


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_right_values_arrive(field: str, value: Any) -> None:
    assert getattr(parse(field, value), field) == value
    assert getattr(parse(field, None), field) is None


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_wrong_values_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(field, value)
    assert caught.value.status == 400
    assert caught.value.param is not None
    assert caught.value.param.split("[")[0] == field


@pytest.mark.parametrize(
    "field", ["top_k", "max_tokens", "max_completion_tokens", "n", "seed", "min_tokens", "priority"]
)
def test_a_whole_number_may_be_written_with_a_point(field: str) -> None:
    value = getattr(parse(field, 40.0), field)
    assert (value, type(value)) == (40, int)
    for wrong in (40.5, float("inf"), float("nan")):
        with pytest.raises(InvalidRequest) as caught:
            parse(field, wrong)
        assert caught.value.param == field


@pytest.mark.parametrize(
    ("fields", "is_included"),
    [
        ({}, False),
        ({"usage": {"include": False}}, False),
        ({"usage": {"include": True}}, True),
        ({"usage": {"include": False}, "stream_options": {"include_usage": True}}, True),
    ],
)
def test_usage_is_asked_for_in_either_way(fields: dict[str, Any], is_included: bool) -> None:
    request = parse_chat_request({"messages": HELLO, "stream": True} | fields)
    assert request.include_usage == is_included


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"reasoning": {"effort": "low"}}, "low"),
        ({"reasoning": {"effort": "low", "exclude": False, "summary": None}}, "low"),
        ({"reasoning": {"effort": "none"}, "reasoning_effort": "none"}, "none"),
        ({"reasoning": {}, "reasoning_effort": "high"}, "high"),
        ({"reasoning": {}}, None),
    ],
)
def test_an_effort_may_be_in_reasoning(fields: dict[str, Any], effort: str | None) -> None:
    assert parse_chat_request({"messages": HELLO} | fields).wanted_effort == effort


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"effort": "very"}}, "reasoning.effort"),
        ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, "reasoning.effort"),
    ],
)
def test_wrong_members_of_reasoning_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat_request({"messages": HELLO} | fields)
    assert caught.value.param == param
