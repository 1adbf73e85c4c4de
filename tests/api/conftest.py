"""The app over an engine without a model, asked over HTTP without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.api.context import ServerContext
from millstream.core.plan import IMPOSSIBLE_TOKEN, Plan, StepOutput
from millstream.core.request import Request
from millstream.runtime.client import EngineClient
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from millstream.settings import Settings
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.vocabulary import Vocabulary
from millstream.workers.workers import Workers
from tests.api.described_transport import CheckedTransport
from tests.fakes import FakeRunner, fake_info
from tests.text.conftest import byte_tokenizer

__all__ = ["byte_tokenizer"]

SETTINGS = Settings(served_model_name="fake", request_timeout=100)
END = 49  # the engine's end-of-turn token; the fake runner draws it like any other


class RecordingRunner(FakeRunner):
    """Keeps every request it has seen, in order of arrival; fails the steps it is told to."""

    def __init__(self) -> None:
        super().__init__(fake_info(num_blocks=256))
        self.requests: dict[int, Request] = {}
        self.is_failing = False
        self.forbids_all = False

    def step(self, plan: Plan) -> StepOutput:
        self.requests |= {chunk.request_id: chunk.request for chunk in plan.chunks}
        # Not by those who follow: they may still run when the next request comes.
        if self.is_failing and any(chunk.request.follows is None for chunk in plan.chunks):
            self.is_failing = False
            raise RuntimeError("planted failure")
        output = super().step(plan)
        if self.forbids_all:
            return StepOutput([IMPOSSIBLE_TOKEN] * len(output.tokens))
        return output


class LetterTemplate:
    """Renders messages as letters that the fake vocabulary has."""

    chat_template = "{{ messages }} {{ enable_thinking }}"

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        text = "".join(message["content"] for message in conversation)
        text += "?" if options["add_generation_prompt"] else ""
        return text + ("#" if options.get("enable_thinking") else "")


class Api:
    """One server in this process. `runner` sees what the engine is asked."""

    def __init__(self, client: httpx.AsyncClient, engine: EngineClient, runner: Any) -> None:
        self._client = client
        self.engine = engine
        self.runner: RecordingRunner = runner

    @property
    def requests(self) -> list[Request]:
        return [request for _, request in sorted(self.runner.requests.items())]

    @property
    def app(self) -> Any:
        return self._client._transport.app  # type: ignore[attr-defined]

    async def leave(self, path: str, body: dict[str, Any], *, when: Callable[[], bool]) -> int:
        """The status that a request ends with whose client leaves at some moment."""
        sent = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"host", b"test")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "headers": headers,
            "query_string": b"",
        }
        messages: list[Any] = []

        async def receive() -> Any:
            if not messages:
                messages.append(None)
                return {"type": "http.request", "body": sent, "more_body": False}
            while not when():  # noqa: ASYNC110, what is waited for sets no event
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        status: int = messages[1]["status"]
        return status

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._client.request(method, path, **options)

    async def post(self, **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "!%+,"}], "max_tokens": 12} | fields
        return await self._client.post("/v1/chat/completions", json=body)

    async def answer(self, **fields: Any) -> dict[str, Any]:
        response = await self.post(**fields)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def events(self, **fields: Any) -> list[Any]:
        """The parsed events of a stream that ends well."""
        response = await self.post(stream=True, **fields)
        assert response.status_code == 200, response.text
        *events, done = [part.removeprefix("data: ") for part in response.text.split("\n\n")[:-1]]
        assert done == "[DONE]"
        return [json.loads(event) for event in events]


@pytest.fixture
async def api(byte_tokenizer: Tokenizer) -> AsyncIterator[Api]:
    async with serve(RecordingRunner(), byte_tokenizer) as api:
        yield api


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.stop()


@asynccontextmanager
async def serve(
    runner: Runner,
    tokenizer: Tokenizer,
    settings: Settings = SETTINGS,
    *,
    template: LetterTemplate | None = None,
) -> AsyncIterator[Api]:
    """Six places, of which four run."""
    engine = supervised_client(
        ThreadHost(build_runner=lambda: runner, max_running=4),
        max_running=4,
        max_waiting=2,
        max_answer_tokens=settings.max_output_tokens,
        max_prompt_tokens=settings.max_input_tokens,
        max_waiting_tokens=settings.max_queue_tokens,
        engine_timeout=60,
    )
    workers = Workers()
    context = ServerContext(
        settings=settings,
        engine=engine,
        chat=ChatFormatter(template or LetterTemplate(), tokenizer),
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer),
        parsers=AnswerReader(),
        workers=workers,
        stop_token_ids=(END,),
        fingerprint="f",
    )
    engine.start()
    try:
        await engine.wait_ready()
        transport = CheckedTransport(context)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Api(client, engine, runner)
        assert engine.num_open == 0, "a request kept its place"
    finally:
        await engine.stop()
        await workers.stop()
