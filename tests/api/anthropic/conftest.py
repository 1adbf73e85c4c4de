"""The Messages API over an engine that says what it is told to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anthropic
import httpx
import httpx2
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.api.described_transport import CheckedTransport
from tests.api.serving import context, serve
from tests.api.talk import HERMES, Talk, marked_tokenizer, talk
from tests.text.conftest import byte_tokenizer

__all__ = ["byte_tokenizer", "context", "marked_tokenizer", "serve", "talk"]

TOOLS = [
    {
        "name": "get_weather",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
    {"name": "now", "input_schema": {"type": "object", "properties": {}}},
]
BODY: dict[str, Any] = {
    "model": "any",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "x"}],
}

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


class Messages:
    """A server and what its clients read. parsers: of the model; may be others."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        talk.speaker.say("Yes.")
        self.parsers = HERMES
        self.tokenizer = talk.tokenizer
        self.context = talk.context

    def say(self, text: str) -> None:
        self._talk.speaker.say(text)

    @asynccontextmanager
    async def http(self, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        chosen = self.context.settings.model_copy(update=settings)
        context = replace(self.context, parsers=self.parsers, settings=chosen)
        transport = CheckedTransport(context)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    async def post(self, path: str = "/v1/messages", **fields: Any) -> httpx.Response:
        async with self.http() as client:
            return await client.post(path, json=BODY | fields)

    async def refused(self, **fields: Any) -> str:
        """The message of a refusal."""
        response = await self.post(**fields)
        assert response.status_code == 400, response.text
        body = response.json()
        assert body["error"]["type"] == "invalid_request_error"
        message: str = body["error"]["message"]
        return message

    async def whole(self, **fields: Any) -> dict[str, Any]:
        response = await self.post(**fields)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        Message.model_validate(body, strict=True)
        return body

    async def events(self, **fields: Any) -> list[dict[str, Any]]:
        """The events of a stream, each of the type that its name says, and known to the SDK."""
        response = await self.post(stream=True, **fields)
        assert response.status_code == 200, response.text
        events = []
        for frame in response.text.split("\n\n")[:-1]:
            name, data = frame.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            _EVENT.validate_python(event, strict=True)
            events.append(event)
        return events

    async def streamed(self, **fields: Any) -> dict[str, Any]:
        """What Anthropic's SDK puts together of a stream."""
        async with self.http() as http:

            async def forward(request: httpx2.Request) -> httpx2.Response:
                response = await http.request(
                    request.method,
                    str(request.url),
                    content=await request.aread(),
                    headers=dict(request.headers),
                )
                return httpx2.Response(
                    response.status_code, headers=dict(response.headers), content=response.content
                )

            client = anthropic.AsyncAnthropic(
                api_key="none",
                base_url="http://test",
                http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(forward)),
                max_retries=0,
            )
            async with client.messages.stream(**(BODY | fields)) as stream:
                message = await stream.get_final_message()
        return message.model_dump(exclude_unset=True, exclude={"stop_details"})

    async def both(self, text: str, **fields: Any) -> dict[str, Any]:
        """The answer to a text, which is the same streamed and whole, but for ids."""
        self.say(text)
        whole = await self.whole(**fields)
        self.say(text)
        streamed = await self.streamed(**fields)
        assert without_ids(streamed) == without_ids(whole)
        return whole


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message, with the number of each call in the place of its id."""
    content = [
        block | {"id": place} if block["type"] == "tool_use" else block
        for place, block in enumerate(message["content"])
    ]
    usage = {k: v for k, v in message["usage"].items() if "input" not in k}
    return message | {"id": "", "content": content, "usage": usage}


@pytest.fixture
def messages(talk: Talk) -> Messages:
    return Messages(talk)
