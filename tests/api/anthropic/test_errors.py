"""Refusals and failures as clients of the Messages API read them, whoever makes them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from millstream.errors import GenerationFailed
from millstream.generation.choices import Choice
from millstream.text.assembler import TextDelta
from tests.api.anthropic.conftest import BODY, Messages
from tests.api.serving import Serve

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}
VERSION = {"anthropic-version": "2023-06-01"}


def refused(response: httpx.Response, *, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["request_id"] == response.headers["request-id"]
    message: str = body["error"]["message"]
    return message


async def test_a_long_prompt_is_told_in_the_words_that_programs_know(messages: Messages) -> None:
    limit = messages.context.engine.info.max_context
    for words in (limit, 100 * limit):
        text = "x " * words
        said = await messages.refused(messages=[{"role": "user", "content": text}])
        count = int(said.split()[4])
        assert said == f"prompt is too long: {count} tokens > {limit - 1} maximum"
        assert count >= limit


async def test_a_full_server_is_overloaded(messages: Messages) -> None:
    held = messages.context.engine.open_many(6)
    try:
        response = await messages.post()
        refused(response, status=529, kind="overloaded_error")
        assert int(response.headers["retry-after"]) > 0
    finally:
        for stream in held:
            stream.close()


async def test_a_failure_in_a_stream_is_its_last_event(
    messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltas = iter([TextDelta("Hello")])

    async def advance(self: Choice) -> TextDelta:
        for delta in deltas:
            return delta
        raise GenerationFailed("planted")

    monkeypatch.setattr(Choice, "advance", advance)
    response = await messages.post(stream=True)
    first, *_, last, nothing = response.text.split("\n\n")
    assert first.startswith("event: message_start\n")
    name, data = last.split("\n")
    assert (name, nothing) == ("event: error", "")
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "planted"},
        "request_id": response.headers["request-id"],
    }


@pytest.mark.parametrize(
    ("status", "kind", "method", "path", "options"),
    [
        (400, "invalid_request_error", "POST", "/v1/messages", {"content": b"{", "headers": JSON}),
        (400, "invalid_request_error", "POST", "/v1/messages", {"json": {}}),
        (400, "invalid_request_error", "POST", "/v1/messages/count_tokens", {"json": {}}),
        (401, "authentication_error", "POST", "/v1/messages", {"headers": {"x-api-key": "no"}}),
        (404, "not_found_error", "POST", "/v1/messages/nothing", {"json": BODY}),
        (404, "not_found_error", "GET", "/v1/models/other", {"headers": VERSION}),
        (405, "invalid_request_error", "GET", "/v1/messages", {}),
        (413, "request_too_large", "POST", "/v1/messages", {"json": {"a": "x" * 3000}}),
        (415, "invalid_request_error", "POST", "/v1/messages", {"headers": TEXT}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("root", [None, "/llm"])
async def test_every_refusal_has_the_shape(
    serve: Serve,
    root: str | None,
    status: int,
    kind: str,
    method: str,
    path: str,
    options: dict[str, Any],
) -> None:
    client = serve(api_key="sesame", payload_limit=2000, root_path=root)
    headers = {"x-api-key": "sesame"} | options.get("headers", {})
    response = await client.request(method, (root or "") + path, **(options | {"headers": headers}))
    message = refused(response, status=status, kind=kind)
    if status == 400 and "json" in options:
        assert message == "messages: Field required"


async def test_a_key_comes_in_either_header_or_in_both(serve: Serve) -> None:
    client = serve(api_key="sesame,other")
    x, bearer = {"x-api-key": "sesame"}, {"authorization": "Bearer sesame"}
    for headers in (x, bearer, x | bearer):
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
    for headers in (
        x | {"authorization": "Bearer other"},
        x | {"authorization": "Bearer wrong"},
        x | {"authorization": "Basic sesame"},
        {"x-api-key": ""},
        {"x-api-key": "wrong"},
    ):
        assert (await client.get("/v1/models", headers=headers)).status_code == 401
    twice = [(b"x-api-key", b"sesame"), (b"x-api-key", b"sesame")]
    assert (await client.get("/v1/models", headers=twice)).status_code == 401


async def test_the_root_answers_programs_that_look_for_a_server(serve: Serve) -> None:
    client = serve(api_key="sesame")
    head, get = await client.head("/"), await client.get("/")
    assert (head.status_code, head.content) == (200, b"")
    assert get.status_code == 200
    assert get.text.startswith("Millstream")


async def test_models_are_listed_in_the_shape_of_whoever_asks(serve: Serve) -> None:
    client = serve()
    openai = (await client.get("/v1/models")).json()
    page = (await client.get("/v1/models?limit=1000", headers=VERSION)).json()
    one = (await client.get("/v1/models/fake", headers=VERSION)).json()
    assert openai["object"] == "list"
    assert page["data"] == [one]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "fake", "fake")
    assert (one["type"], one["id"], one["display_name"]) == ("model", "fake", "fake")
    assert one["created_at"].endswith("Z")
    assert one["max_input_tokens"] == openai["data"][0]["max_model_len"]
