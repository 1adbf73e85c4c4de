"""Every field of a completion request: right values arrive, wrong ones are named."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.requests.completion import CompletionRequest, parse_completion_request
from tests.api.openai.test_schema_values import BAD, GOOD, OTHERS

OWN_GOOD: dict[str, list[Any]] = {
    "prompt": ["", "text", ["a", ""], [1, 2], [[1, 2], [3]], [[]], ["x"] * 1024],
    "max_tokens": [1, 10**9],
    "logprobs": [0, 1, 20],
    "echo": [True, False],
    "add_special_tokens": [True, False],
    "best_of": [1],
}
OWN_BAD: dict[str, list[Any]] = {
    "prompt": [
        *(None, 5, {}, [], True),
        *([True], [1.5], [-1], [None], ["a", 1], [1, "a"], ["a", [1]], [[1], "a"], [["a"]]),
        *([[1, -1]], [[[1]]], ["x"] * 1025, [[1]] * 1025),
    ],
    "max_tokens": [0, -1, 1.5, "8", True],
    "logprobs": [-1, 21, True, "1"],
    "echo": [0, "yes"],
    "add_special_tokens": [1],
    "best_of": [0, 2, "1"],
}
FIELDS = set(CompletionRequest.model_fields)


def cases(shared: dict[str, list[Any]], own: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    known = {name: values for name, values in shared.items() if name in FIELDS} | own
    return [(name, value) for name, values in known.items() for value in values]


def parse(**fields: Any) -> CompletionRequest:
    return parse_completion_request({"prompt": "text"} | fields)


def refused(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.status == 400
    return caught.value.param, caught.value.code


def test_every_field_has_its_values_tested() -> None:
    assert {name for name, _ in cases(GOOD, OWN_GOOD)} == FIELDS - OTHERS
    assert {name for name, _ in cases(BAD, OWN_BAD)} == FIELDS - OTHERS


@pytest.mark.parametrize(("field", "value"), cases(GOOD, OWN_GOOD))
def test_right_values_arrive(field: str, value: Any) -> None:
    assert getattr(parse(**{field: value}), field) == value
    if field != "prompt":
        assert getattr(parse(**{field: None}), field) is None


@pytest.mark.parametrize(("field", "value"), cases(BAD, OWN_BAD))
def test_wrong_values_are_named(field: str, value: Any) -> None:
    param, _ = refused(**{field: value})
    assert param is not None
    assert param.split("[")[0] == field


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([1, -1], "prompt[1]"),
        ([[1], [2, "x"]], "prompt[1][1]"),
        (["a", 5], "prompt[1]"),
        ([], "prompt"),
        (5, "prompt"),
    ],
)
def test_a_wrong_part_of_a_prompt_has_its_path(value: Any, param: str) -> None:
    assert refused(prompt=value)[0] == param


@pytest.mark.parametrize(
    "field",
    ["messages", "reasoning_effort", "tools", "max_completion_tokens", "top_logprobs", "no_such"],
)
def test_fields_of_chat_are_unknown(field: str) -> None:
    assert refused(**{field: 1}) == (field, "unknown_parameter")


@pytest.mark.parametrize(
    "field",
    ["suffix", "prompt_embeds", "truncate_prompt_tokens", "use_beam_search", "return_full_text"],
)
def test_what_is_not_implemented_is_named(field: str) -> None:
    assert refused(**{field: 7}) == (field, "unsupported_parameter")


def test_values_that_ask_for_nothing_are_taken() -> None:
    assert parse(suffix="", use_beam_search=False, return_full_text=False, truncate=None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"min_tokens": 1, "max_tokens": 0, "echo": True}, "min_tokens"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"response_format": {"type": "regex"}}, "response_format.value"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields)[0] == param


def test_what_goes_together() -> None:
    assert parse(n=2, best_of=2).num_choices == 2
    assert parse(max_tokens=0, echo=True).wanted_tokens == 0
    assert parse().wanted_tokens == 16
    assert parse(min_tokens=16).min_tokens == 16


def test_prompts_are_told_apart() -> None:
    assert parse(prompt="a").prompts == ["a"]
    assert parse(prompt=["a", "b"]).prompts == ["a", "b"]
    assert parse(prompt=[1, 2]).prompts == [[1, 2]]
    assert parse(prompt=[[1], [2, 3]]).prompts == [[1], [2, 3]]


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, None),
        ({"logprobs": 3}, None),
        ({"echo": True}, None),
        ({"logprobs": 3, "echo": True}, 3),
        ({"logprobs": 0, "echo": True}, 0),
        ({"logprobs": 3, "echo": True, "prompt_logprobs": 5}, 5),
        ({"logprobs": 3, "prompt_logprobs": 1}, 1),
    ],
)
def test_the_prompt_is_scored_for_whoever_asks(fields: dict[str, Any], count: int | None) -> None:
    assert parse(**fields).num_prompt_logprobs == count
