"""Bodies with very many things in them: one error is made, and others get their turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from millstream.api.openai.tokenize.body import DetokenizeRequest
from millstream.api.wire import json_body
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest
from millstream.intake.strict_body import Body, invalid
from tests.api.conftest import Api

MANY = 2000
KEYS = {f"k{number}": 1 for number in range(MANY)}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(*content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content) or "x"}], **fields}


def calls(*calls: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": "x", "tool_calls": list(calls)}]}


@pytest.mark.parametrize(
    ("schema", "body", "param"),
    [
        (ChatRequest, chat(*[{"type": "x"}] * MANY), "messages[0].content[0].type"),
        (ChatRequest, chat(*[1] * MANY), "messages[0].content[0]"),
        (ChatRequest, chat({"type": "text", "text": "x", **KEYS}), "messages[0].content[0].k0"),
        (ChatRequest, {"messages": [{"role": 1}] * MANY}, "messages[0].role"),
        (ChatRequest, {"messages": [{"role": "user", "content": "x", **KEYS}]}, "messages[0].k0"),
        (ChatRequest, calls(*[{}] * MANY), "messages[0].tool_calls[0].function"),
        (ChatRequest, chat(logit_bias=KEYS), "logit_bias"),
        (ChatRequest, chat(metadata=KEYS), "metadata"),
        (ChatRequest, chat(bad_words=[1] * MANY), "bad_words[0]"),
        (ChatRequest, chat(tools=[{}] * MANY), "tools[0].type"),
        (CompletionRequest, {"prompt": [1.5] * MANY}, "prompt[0]"),
        (CompletionRequest, {"prompt": [[1.5] * MANY] * 2}, "prompt[0][0]"),
        (CompletionRequest, {"prompt": "x", "allowed_token_ids": ["x"] * MANY}, None),
        (DetokenizeRequest, {"tokens": ["x"] * MANY}, "tokens[0]"),
    ],
)
def test_the_first_error_is_enough(schema: type[Body], body: Any, param: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        schema.model_validate(body)
    assert caught.value.error_count() <= 3
    refusal = invalid(caught.value.errors()[0])
    assert refusal.param == (param or "allowed_token_ids[0]")


def schemas(part: Any) -> Iterator[dict[str, Any]]:
    """Every schema within one of pydantic's."""
    if isinstance(part, dict):
        if isinstance(part.get("type"), str):
            yield part
        for inner in part.values():
            yield from schemas(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from schemas(inner)


@pytest.mark.parametrize("schema", [ChatRequest, CompletionRequest, DetokenizeRequest])
def test_every_list_of_a_body_ends_at_its_first_error(schema: type[Body]) -> None:
    found = [part for part in schemas(schema.__pydantic_core_schema__) if part["type"] == "list"]
    assert found
    assert all(part["fail_fast"] for part in found)


async def test_a_large_body_is_checked_beside_the_event_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def parse(body: bytes) -> Any:
        threads.append(threading.get_ident())
        return json.loads(body)

    monkeypatch.setattr(json_body, "_parse", parse)
    for size in (10, 100_000):
        await api.ask("POST", "/tokenize", json={"prompt": "!" * size})
    small, large = threads
    assert small == threading.get_ident() != large


@pytest.mark.parametrize("unit", ["[]", "{}", '{"a":[1]}', '["[\\"["]'])
async def test_a_body_has_so_many_lists_and_objects(api: Api, unit: str) -> None:
    content = '{"prompt":"!","x":[' + ",".join([unit] * 110_000) + "]}"
    response = await api.ask("POST", "/tokenize", content=content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid_json"
    assert "lists and objects" in error["message"]


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"' * 100_000, '\\"[' * 100_000, "\\[{" * 100_000]
)
async def test_brackets_in_texts_are_not_counted(api: Api, text: str) -> None:
    response = await api.ask("POST", "/tokenize", json={"prompt": "!", "model": text})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a"}] * 5_000,
        [{"role": "user", "content": [{"type": "text", "text": "a"}] * 5_000}],
        [
            {"role": "assistant", "tool_calls": [CALL] * 5_000},
            {"role": "user", "content": "a"},
        ],
    ],
    ids=["messages", "parts", "calls"],
)
async def test_what_cannot_fit_is_not_rendered(messages: list[Any], api: Api) -> None:
    response = await api.ask("POST", "/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "messages, parts and calls" in error["message"]
