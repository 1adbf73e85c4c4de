"""How an application on uvicorn ends while answers run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus

from tests.mounted.conftest import Make

ENDLESS = {"model": "m", "prompt": "a", "stream": True, "max_tokens": 50_000, "ignore_eos": True}
SHORT = ENDLESS | {"max_tokens": 30}


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Those that uvicorn hands on when it has ended. They end neither tests nor later servers."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)
    AppStatus.should_exit = False


def application(make: Make, *, grace: float) -> FastAPI:
    """The server at /llm, and an endless stream of somebody else's at /ticks."""
    chat = make(graceful_termination_timeout=grace)
    app = FastAPI(lifespan=chat.lifespan)
    app.mount("/llm", chat.app)

    @app.get("/ticks")
    async def ticks() -> EventSourceResponse:
        async def forever() -> AsyncIterator[str]:
            while True:
                yield "tick"
                await asyncio.sleep(0.01)

        return EventSourceResponse(forever())

    return app


async def read(
    client: httpx.AsyncClient, begun: asyncio.Event, path: str, body: Any = None
) -> list[str]:
    """The data of all events. begun: set by the first one."""
    events = []
    with contextlib.suppress(httpx.RemoteProtocolError):  # how somebody else's streams are cut
        async with client.stream("POST" if body else "GET", path, json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
                    begun.set()
    return events


async def talk(server: uvicorn.Server, *, num_signals: int) -> list[list[str]]:
    """The streams that are open when the process is told to end."""
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        asked: list[tuple[str, Any]] = [("/ticks", None)]
        asked += [("/llm/v1/completions", body) for body in (ENDLESS, SHORT)]
        begun = [asyncio.Event() for _ in asked]
        reading = [
            asyncio.create_task(read(client, event, path, body))
            for event, (path, body) in zip(begun, asked, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        for _ in range(num_signals):
            os.kill(os.getpid(), signal.SIGTERM)  # two at a time would be one
            while not server.should_exit:  # noqa: ASYNC110, a handler of signals sets no event
                await asyncio.sleep(0.01)
        return await asyncio.gather(*reading)


def run(app: FastAPI, *, num_signals: int) -> list[list[str]]:
    """Runs uvicorn in this thread, where signals arrive, until it has ended by itself."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))

    def ask() -> list[list[str]]:
        try:
            while not server.started:
                time.sleep(0.01)
            return asyncio.run(talk(server, num_signals=num_signals))
        finally:
            server.should_exit = True

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        server.run()
        return asking.result()


def test_answers_get_their_grace_and_then_an_error(make: Make, signals: list[int]) -> None:
    ticks, endless, short = run(application(make, grace=3), num_signals=1)
    assert signals == [signal.SIGTERM]
    assert short[-1] == "[DONE]"
    assert json.loads(endless[-1])["error"]["code"] == "shutting_down"
    assert len(endless) > len(short)
    assert ticks[-1] == "tick"


def test_a_second_signal_waits_no_longer(make: Make, signals: list[int]) -> None:
    began = time.monotonic()
    _, endless, _ = run(application(make, grace=60), num_signals=2)
    assert time.monotonic() - began < 30
    assert json.loads(endless[-1])["error"]["code"] == "shutting_down"
