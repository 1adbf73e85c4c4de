"""A server that keeps what it makes in memory, and whose engine says what it is told to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.answering.runs import Runs
from millstream.api.context import ServerContext
from millstream.settings import Settings
from millstream.store.address import StoreAddress
from millstream.store.store import Store
from millstream.text.chat_prompt import ChatFormatter
from tests.api.described_transport import CheckedTransport
from tests.api.talk import Talk, byte_tokenizer, marked_tokenizer, talk

__all__ = ["byte_tokenizer", "marked_tokenizer", "talk"]

KEYS = {"one": {"Authorization": "Bearer first"}, "other": {"Authorization": "Bearer second"}}


class EveryWord:
    """A template that writes every message whole, and remembers them."""

    chat_template = "{{ messages }} {{ tools }} reasoning_content tool_calls enable_thinking"
    conversation: Any = None

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        self.conversation = conversation
        return "".join(map(self._line, conversation))

    def _line(self, message: Any) -> str:
        calls = "".join(
            f"<{call['function']['name']}>{json.dumps(call['function']['arguments'])}"
            for call in message.get("tool_calls", ())
        )
        thought = message.get("reasoning_content", "")
        return f"{message['role']}:{thought}|{texts(message.get('content'))}{calls}\n"


def texts(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


class Desk:
    """Asks a server."""

    def __init__(self, talk: Talk, context: ServerContext, template: EveryWord) -> None:
        self.template = template
        self.talk = talk
        self.context = context
        self.runs = context.runs
        self.tokenizer: Tokenizer = talk.tokenizer

    @property
    def shown(self) -> Any:
        """The messages that the template was given last."""
        return self.template.conversation

    def say(self, *texts: str) -> None:
        self.talk.speaker.say(*texts)

    async def ask(
        self, method: str, path: str, *, headers: Any = None, settings: Any = None, **options: Any
    ) -> httpx.Response:
        context = self.context
        if settings is not None:
            context = replace(context, settings=Settings(served_model_name="fake", **settings))
        transport = CheckedTransport(context)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers, **options)

    async def post(self, *, headers: Any = None, settings: Any = None, **body: Any) -> Any:
        """POST /v1/responses."""
        return await self.ask(
            "POST",
            "/v1/responses",
            headers=headers,
            settings=settings,
            json={"input": "x"} | body,
        )

    async def make(self, *, headers: Any = None, **body: Any) -> Any:
        response = await self.post(headers=headers, **body)
        assert response.status_code == 200, response.text
        return response.json()

    async def events(self, *, headers: Any = None, **body: Any) -> list[Any]:
        response = await self.post(headers=headers, stream=True, **body)
        assert response.status_code == 200, response.text
        return read_events(response)

    async def get(self, path: str, *, headers: Any = None, **query: Any) -> Any:
        response = await self.ask("GET", path, headers=headers, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, *, status: int = 400, **body: Any) -> Any:
        response = await self.post(**body)
        assert response.status_code == status, response.text
        return response.json()["error"]["param"]


def read_events(response: httpx.Response) -> list[Any]:
    """The events of a stream; their ids are checked to be their numbers."""
    events = []
    for frame in response.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        event = json.loads(fields["data"])
        assert fields["event"] == event["type"]
        assert int(fields["id"]) == event["sequence_number"]
        events.append(event)
    return events


@pytest.fixture
async def desk(talk: Talk) -> AsyncIterator[Desk]:
    store = await Store.open(StoreAddress(kind="memory"))
    template = EveryWord()
    chat = ChatFormatter(template, talk.tokenizer)
    context = replace(talk.context, store=store, runs=Runs(), parsers=talk.parsers, chat=chat)
    try:
        yield Desk(talk, context, template)
    finally:
        await context.runs.stop()
        await store.close()
