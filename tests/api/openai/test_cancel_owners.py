"""An id that a client chose is the client's: nobody else cancels by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from millstream.settings import Settings
from tests.api.described_transport import CheckedTransport
from tests.api.talk import Talk, marked_tokenizer, talk
from tests.text.conftest import byte_tokenizer

__all__ = ["byte_tokenizer", "marked_tokenizer", "talk"]

SAID = {"messages": [{"role": "user", "content": "x"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": SAID,
    "/v1/messages": SAID | {"model": "any", "max_tokens": 9},
    "/v1/responses": {"input": "x", "store": False},
    "/v1/responses/compact": {"input": "x"},
    "/v1/completions": {"prompt": "x"},
    "/generate": {"inputs": "x"},
    "/vertex": {"instances": [{"inputs": "x"}]},
}


@pytest.mark.parametrize("path", BODIES)
async def test_only_the_owner_cancels_by_an_id_that_can_be_guessed(talk: Talk, path: str) -> None:
    talk.speaker.say("Yes.")
    settings = Settings(served_model_name="fake", api_key=["first,second"], store="off")
    transport = CheckedTransport(replace(talk.context, settings=settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def cancel(key: str, request_id: str) -> int:
            url = f"/v1/chat/completions/{request_id}/cancel"
            return (await client.post(url, headers={"x-api-key": key})).status_code

        with talk.speaker.silent():
            headers = {"x-api-key": "first", "x-request-id": "1"}
            asked = asyncio.create_task(client.post(path, json=BODIES[path], headers=headers))
            while talk.context.engine.num_open < 1:  # noqa: ASYNC110, what is waited for sets no event
                await asyncio.sleep(0)
            (name,) = [n for s in talk.context.engine.streams for n in s.names if ":" in n]
            for request_id in ("1", ":1", name):
                assert await cancel("second", request_id) == 404
            assert await cancel("first", name) == 404
            assert await cancel("first", "1") == 200
        assert (await asked).status_code in (499, 500)
