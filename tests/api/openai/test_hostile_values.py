"""No value of any field is answered with 500: what a library raises is a refusal too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest
from tests.api.conftest import Api

TOO_DEEP = "TOO_DEEP"  # replaced in the text: json.dumps cannot write it
DEEP = "[" * 1_500 + "]" * 1_500
HOSTILE: list[Any] = [
    2**31,
    2**32,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    1e308,
    -1e308,
    5e-324,
    float("nan"),
    float("inf"),
    -1,
    0,
    True,
    None,
    "",
    "\x00",
    "\ud800",
    "\U0010ffff" * 50,
    "9" * 5_000,
    "a" * 70_000,
    [],
    [[]],
    [None],
    ["\ud800"],
    [2**64],
    [{}],
    {},
    {"": None},
    {"\ud800": "\ud800"},
    {"a": 2**64},
    {"0": 1e308},
    {"type": "object"},
    {"type": "\ud800"},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}},
    TOO_DEEP,
    {"a": TOO_DEEP},
    [TOO_DEEP],
]
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHAT = {
    "messages": [
        {"role": "system", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "x"}], "name": "x"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "x"},
        {"role": "tool", "content": "x", "tool_call_id": "a"},
        {"role": "user", "content": "!"},
    ],
    "max_tokens": 2,
    "tools": [TOOL],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "x", "strict": True, "schema": {"type": "string"}},
    },
    "stream_options": {"include_usage": True},
    "chat_template_kwargs": {"enable_thinking": True},
    "structured_outputs": {"regex": "a"},
    "logit_bias": {"1": 1.0},
}
TEXT = {"prompt": "!", "max_tokens": 2}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything within a JSON value."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    copy = value.copy()
    copy[key] = replaced(value[key], tuple(rest), new)
    return copy


async def check(api: Api, path: str, bodies: Iterator[Any]) -> None:
    failed = []
    for body in bodies:
        text = json.dumps(body).replace(f'"{TOO_DEEP}"', DEEP)
        response = await api.ask(
            "POST", path, content=text.encode(), headers={"content-type": "application/json"}
        )
        if response.status_code == 500:
            failed.append((text[:300], response.text[:200]))
    assert not failed, failed[:5]


@pytest.mark.parametrize("name", sorted(ChatRequest.model_fields))
async def test_a_field_of_chat(name: str, api: Api) -> None:
    simple = {"messages": CHAT["messages"][-1:], "max_tokens": 2}  # type: ignore[index]
    await check(api, "/v1/chat/completions", (simple | {name: value} for value in HOSTILE))


@pytest.mark.parametrize("name", sorted(CompletionRequest.model_fields))
async def test_a_field_of_completions(name: str, api: Api) -> None:
    await check(api, "/v1/completions", (TEXT | {name: value} for value in HOSTILE))


@pytest.mark.parametrize("field", [name for name in CHAT if name not in ("max_tokens",)])
async def test_a_value_within_a_field(field: str, api: Api) -> None:
    whole = {"messages": CHAT["messages"], "max_tokens": 2, field: CHAT[field]}
    inner = [path for path in places(whole) if path[0] == field]
    await check(
        api,
        "/v1/chat/completions",
        (replaced(whole, path, value) for path in inner for value in HOSTILE),
    )


ARGUMENTS = [
    "",
    "{",
    '{"a": "\\ud800"}',
    DEEP,
    f'{{"a": {DEEP}}}',
    "null",
    "[]",
    "1",
    '{"a":1e999}',
]


@pytest.mark.parametrize("text", ARGUMENTS)
async def test_arguments_of_calls_in_the_history(text: str, api: Api) -> None:
    body = replaced(CHAT, ("messages", 2, "tool_calls", 0, "function", "arguments"), text)
    body = {"messages": body["messages"], "max_tokens": 2}
    await check(api, "/v1/chat/completions", iter([body]))


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_tokenizing(path: str, api: Api) -> None:
    bodies = [{name: value} for name in ("prompt", "messages", "tokens") for value in HOSTILE]
    await check(api, path, iter(bodies))
