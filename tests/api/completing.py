"""Completions as clients read them: checked by the SDK's types and by those of the API document."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from openai.types import Completion as SdkCompletion
from pydantic import TypeAdapter

from millstream.api.openai.completions.shapes import Completion, CompletionChunk
from tests.api.conftest import Api

PATH = "/v1/completions"
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")

_WHOLE = TypeAdapter(Completion)
_CHUNK = TypeAdapter(CompletionChunk)


async def complete(api: Api, **fields: Any) -> dict[str, Any]:
    response = await api.ask("POST", PATH, json=fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    _WHOLE.validate_python(body)
    if not (fields.get("echo") and fields.get("logprobs") is not None):
        # The SDK does not check what it receives, and does not expect OpenAI's own nulls.
        SdkCompletion.model_validate(body)
    return body


async def texts(api: Api, **fields: Any) -> list[str]:
    return [choice["text"] for choice in (await complete(api, **fields))["choices"]]


async def refused(api: Api, **fields: Any) -> dict[str, Any]:
    """The error, which is the same for a stream."""
    errors = []
    for stream in (False, True):
        response = await api.ask("POST", PATH, json=fields | {"stream": stream})
        assert response.status_code == 400, response.text
        errors.append(response.json()["error"])
    assert errors[0] == errors[1]
    return dict(errors[0])


async def stream(api: Api, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream that ends well."""
    response = await api.ask("POST", PATH, json=fields | {"stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done = [part.removeprefix("data: ") for part in response.text.split("\n\n")[:-1]]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    for chunk in chunks:
        _CHUNK.validate_python(chunk)
        assert len(chunk["choices"]) <= 1
        if chunk["choices"]:
            assert chunk["token"]["text"] == chunk["choices"][0]["text"]
    return chunks


@dataclass
class Joined:
    """What a client puts together of one choice's events, or reads of its whole answer."""

    text: str = ""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in LISTS})
    token_ids: list[int] = field(default_factory=list)
    prompt_token_ids: list[int] = field(default_factory=list)


def joined(chunks: list[dict[str, Any]]) -> dict[int, Joined]:
    found: dict[int, Joined] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        is_first = choice["index"] not in found
        answer = found.setdefault(choice["index"], Joined())
        assert answer.finish_reason is None, "the finishing event is the last"
        assert ("stop_reason" in choice) == (choice["finish_reason"] is not None)
        _add(answer, choice, is_first=is_first)
    return found


def whole(body: dict[str, Any]) -> dict[int, Joined]:
    found: dict[int, Joined] = {}
    for index, choice in enumerate(body["choices"]):
        assert choice["index"] == index
        found[index] = Joined()
        _add(found[index], choice, is_first=True)
    return found


def _add(answer: Joined, choice: dict[str, Any], *, is_first: bool) -> None:
    answer.text += choice["text"]
    answer.finish_reason = choice["finish_reason"]
    answer.stop_reason = choice.get("stop_reason")
    answer.token_ids += choice.get("token_ids") or []
    assert is_first or "prompt_token_ids" not in choice
    answer.prompt_token_ids += choice.get("prompt_token_ids") or []
    for name, values in (choice["logprobs"] or {}).items():
        answer.logprobs[name] += values


async def both(api: Api, **fields: Any) -> dict[int, Joined]:
    """The answers, which are the same streamed and whole."""
    answers = whole(await complete(api, **fields))
    streamed = joined(await stream(api, **fields))
    assert streamed == answers
    return answers
