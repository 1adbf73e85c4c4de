"""--tgi-error-events: what is refused of a stream, as huggingface_hub reads it from TGI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.api.conftest import SETTINGS, Api, RecordingRunner, serve

CHAT = {"messages": [{"role": "user", "content": "!%+,"}]}


@pytest.fixture
async def full(byte_tokenizer: Tokenizer) -> AsyncIterator[Api]:
    """A server of which every place is taken."""
    settings = SETTINGS.model_copy(update={"tgi_error_events": True})
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        streams = api.engine.open_many(6)
        yield api
        for stream in streams:
            stream.close()


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "!"})]
)
async def test_a_refused_stream_is_one_event(full: Api, path: str, body: dict[str, Any]) -> None:
    whole = await full.ask("POST", path, json=body)
    assert whole.status_code == 429
    streamed = await full.ask("POST", path, json=body | {"stream": True})
    assert streamed.status_code == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["retry-after"]
    assert json.loads(streamed.text.removeprefix("data: ")) == whole.json()
    assert whole.json()["error_type"] == "overloaded"


async def test_other_dialects_keep_their_status(full: Api) -> None:
    body = {"inputs": "!", "stream": True}
    assert (await full.ask("POST", "/", json=body)).status_code == 429
    message = CHAT | {"stream": True, "max_tokens": 3, "model": "m"}
    assert (await full.ask("POST", "/v1/messages", json=message)).status_code == 529


async def test_a_wrong_body_keeps_its_status(full: Api) -> None:
    body = CHAT | {"stream": True, "top_p": 3}
    assert (await full.ask("POST", "/v1/chat/completions", json=body)).status_code == 400
