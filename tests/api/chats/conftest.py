"""Visitors of one server, each with a browser's jar of cookies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from millstream.settings import Settings
from tests.api.described_transport import CheckedTransport
from tests.api.openai.responses.conftest import Desk, desk
from tests.api.talk import byte_tokenizer, marked_tokenizer, talk

__all__ = ["byte_tokenizer", "desk", "marked_tokenizer", "talk"]


class Visitor:
    """Somebody who uses chats. desk: says what the model answers."""

    def __init__(self, desk: Desk, client: httpx.AsyncClient) -> None:
        self.desk = desk
        self.client = client

    async def ask(self, method: str, path: str = "", status: int = 200, **options: Any) -> Any:
        """The JSON of the answer to a request below /v1/chats."""
        response = await self.client.request(method, f"/v1/chats{path}", **options)
        assert response.status_code == status, response.text
        return response.json()

    async def create(self, **body: Any) -> str:
        identifier: str = (await self.ask("POST", json=body))["id"]
        return identifier

    async def say(self, content: str | None, answer: str = "ok", *, chat: str, **body: Any) -> str:
        """The id of the response to a message."""
        self.desk.say(answer)
        if content is not None:
            body["content"] = content
        made = await self.ask("POST", f"/{chat}/messages", json=body)
        assert made["status"] == "completed"
        identifier: str = made["id"]
        return identifier

    async def again(self, chat: str, answer: str, **body: Any) -> str:
        """The id of a regenerated response."""
        self.desk.say(answer)
        identifier: str = (await self.ask("POST", f"/{chat}/regenerate", json=body))["id"]
        return identifier

    async def branch(self, chat: str) -> list[str]:
        """What the messages of a chat say."""
        return [text_of(one) for one in (await self.ask("GET", f"/{chat}"))["messages"]]

    async def listed(self, **query: Any) -> list[str]:
        found = await self.ask("GET", params=query)
        return [chat["id"] for chat in found["data"]]


def text_of(message: dict[str, Any]) -> str:
    """The text of a message."""
    parts = (part for item in message["items"] for part in item.get("content", ()))
    return "".join(part["text"] for part in parts)


@pytest.fixture
async def new_visitor(desk: Desk) -> AsyncIterator[Callable[..., Visitor]]:
    async with AsyncExitStack() as stack:

        def make(headers: Any = None, **settings: Any) -> Visitor:
            given = Settings(served_model_name="fake", **settings)
            transport = CheckedTransport(replace(desk.context, settings=given))
            client = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
            stack.push_async_callback(client.aclose)
            return Visitor(desk, client)

        yield make


@pytest.fixture
async def visitor(new_visitor: Callable[..., Visitor]) -> Visitor:
    """One with a session."""
    visitor = new_visitor()
    await visitor.ask("GET")
    return visitor
