"""HTTP workers of one server, over sockets, each with an engine that says what it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.api.app import build_app
from millstream.api.context import ServerContext
from millstream.api.peers.listeners import peer_listeners
from millstream.api.peers.peers import Peers
from millstream.api.wire.server import Server
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from millstream.settings import Settings
from millstream.store.address import StoreAddress
from millstream.store.store import Store
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.vocabulary import Vocabulary
from millstream.workers.workers import Workers
from tests.api.openai.responses.conftest import EveryWord
from tests.api.talk import HERMES, Speaker, byte_tokenizer, marked_tokenizer
from tests.fakes import fake_info
from tests.runtime.conftest import until

__all__ = ["byte_tokenizer", "marked_tokenizer"]

SAID = {"messages": [{"role": "user", "content": "x"}]}


class Reader:
    """Reads an event stream. seen: all that has come of it."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response
        self.response = response
        self.seen = ""
        self._pieces = response.aiter_text()

    async def until(self, is_enough: Callable[[str], bool]) -> str:
        """Reads until what has come is enough, and returns it."""
        async with asyncio.timeout(20):
            while not is_enough(self.seen):
                self.seen += await anext(self._pieces)
        return self.seen

    async def first(self) -> dict[str, Any]:
        """The data of the first event that has some."""
        data = (await self.until(lambda seen: "\n\n" in seen)).split("data: ", 1)[1]
        event: dict[str, Any] = json.loads(data.split("\n\n")[0])
        return event

    async def rest(self) -> str:
        """All of the stream, to its end."""
        async for piece in self._pieces:
            self.seen += piece
        return self.seen


class HttpWorker:
    """One of the workers, which a test asks over its own port. client: asks it."""

    def __init__(
        self, context: ServerContext, speaker: Speaker, server: Server, client: httpx.AsyncClient
    ) -> None:
        assert context.peers is not None
        self.context, self.peers, self.runs = context, context.peers, context.runs
        self.speaker, self.server, self.client = speaker, server, client

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of an answer with this status."""
        response = await self.client.request(method, path, **options)
        assert response.status_code == status, response.text
        return response.json()

    async def begin(self, **body: Any) -> str:
        """The id of a response in the background that has been begun."""
        made = await self.ask(
            "POST", "/v1/responses", json={"input": "x", "background": True} | body
        )
        identifier: str = made["id"]
        return identifier

    async def settled(self) -> None:
        """Waits until nothing is made here."""
        await until(lambda: not self.runs)

    async def text(self, response_id: str) -> str:
        """What a response says that is complete."""
        made = await self.ask("GET", f"/v1/responses/{response_id}")
        assert made["status"] == "completed"
        text: str = made["output"][0]["content"][0]["text"]
        return text

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[Reader]:
        """Reads a stream, and leaves."""
        async with self.client.stream(method, path, **options) as response:
            yield Reader(response)

    @property
    def num_connections(self) -> int:
        return len(self.server.server_state.connections)

    @property
    def counted(self) -> dict[tuple[str, str, int | None], int]:
        """Answers that the worker has counted, by method, route and status."""
        return dict(self.context.http_metrics.responses)


@asynccontextmanager
async def http_worker(
    peers: Peers,
    tokenizer: Tokenizer,
    *,
    listener: socket.socket,
    store: Path,
    **settings: Any,
) -> AsyncIterator[HttpWorker]:
    """A worker that serves. listener: of its peers; it stays open when the worker has ended."""
    info = replace(fake_info(num_blocks=1024), vocab_size=tokenizer.get_vocab_size())
    speaker = Speaker(tokenizer, info)
    engine = supervised_client(
        ThreadHost(build_runner=lambda: speaker, max_running=4),
        max_running=4,
        max_waiting=2,
        engine_timeout=60,
    )
    chosen = Settings(served_model_name="fake", **settings)
    async with AsyncExitStack() as stack:
        workers = Workers()
        stack.push_async_callback(workers.stop)
        kept = await Store.open(StoreAddress(kind="sqlite", path=store))
        stack.push_async_callback(kept.close)
        context = ServerContext(
            settings=chosen,
            session_secret=b"of all workers",
            engine=engine,
            chat=ChatFormatter(EveryWord(), tokenizer),
            tokenizer=tokenizer,
            vocabulary=Vocabulary(tokenizer),
            parsers=HERMES,
            workers=workers,
            store=kept,
            peers=peers,
            stop_token_ids=(tokenizer.token_to_id("<end>"),),
            fingerprint="f",
        )
        stack.push_async_callback(context.runs.stop)
        engine.start()
        stack.push_async_callback(engine.stop)
        await engine.wait_ready()
        server = Server(
            build_app(context),
            engine=engine,
            settings=chosen,
            http_metrics=context.http_metrics,
            peer_listener=listener.dup(),
            forwarding=peers.forwarding,
        )
        port = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        serving = asyncio.create_task(server.serve([port]))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        try:
            await until(lambda: server.started)
            yield HttpWorker(context, speaker, server, client)
            await until(lambda: not peers.forwarding)
        finally:
            speaker.allow(None)
            server.should_exit = True
            await serving


@pytest.fixture
async def start_workers(
    marked_tokenizer: Tokenizer, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    """Starts the workers of one server: `await start_workers(count, **settings)`."""
    async with AsyncExitStack() as stack:

        async def start(count: int = 2, **settings: Any) -> list[HttpWorker]:
            listeners = stack.enter_context(peer_listeners(count))
            paths = [listener.getsockname() for listener in listeners]
            workers = [
                http_worker(
                    Peers(number, paths, patience=0.5),
                    marked_tokenizer,
                    listener=listener,
                    store=tmp_path / "store.db",
                    **settings,
                )
                for number, listener in enumerate(listeners)
            ]
            return [await stack.enter_async_context(worker) for worker in workers]

        yield start


@pytest.fixture
async def two(start_workers: Callable[..., Any]) -> Sequence[HttpWorker]:
    """The first two workers of a server that has no more."""
    workers: Sequence[HttpWorker] = await start_workers()
    return workers
