"""Chat over /ws of real servers: many sockets at once, an end of the server, an engine killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from .harness import STARTUP_SECONDS, RunningServer, wait_until
from .kept import LONG, KeptServers, written

_SOCKETS = 200
_MESSAGES = 5
_TOKENS = 10
_LOOKED_AT_AGAIN = 20
_MAX_GROWTH = 150 * 2**20


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServers]:
    with KeptServers(tmp_path_factory.mktemp("kept") / "servers.log") as servers:
        yield servers


@asynccontextmanager
async def dialled(url: str, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
    place = url.replace("http", "ws", 1) + "/ws" + query
    async with connect(place, **options) as client:
        yield client


async def send(client: ClientConnection, identifier: Any, text: str, **fields: Any) -> None:
    await client.send(json.dumps({"id": identifier, "text": text} | fields))


async def hear(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), timeout=120))


async def answers(client: ClientConnection, count: int) -> dict[Any, list[Any]]:
    """The frames of so many answers, for each id."""
    found: dict[Any, list[Any]] = {}
    while count:
        frame = await hear(client)
        found.setdefault(frame["id"], []).append(frame)
        count -= "finish_reason" in frame or "error" in frame
    return found


def said(frames: list[Any]) -> tuple[str, str]:
    """The thought and the text of an answer, which ended well."""
    assert frames[0] == {"id": frames[0]["id"], "text": ""}
    assert frames[-1]["finish_reason"] in ("stop", "length", "tool_calls"), frames[-1]
    thought = "".join(frame.get("reasoning", "") for frame in frames)
    return thought, "".join(frame["text"] for frame in frames)


async def _talk(url: str, number: int) -> dict[str, tuple[str, str]]:
    """One socket with all its messages in flight. What was answered to each text."""
    async with dialled(url, open_timeout=120, ping_timeout=None) as client:
        for message in range(_MESSAGES):
            await send(client, message, f"{number} {message}", max_tokens=_TOKENS)
        found = await answers(client, _MESSAGES)
    assert sorted(found) == list(range(_MESSAGES))
    return {f"{number} {message}": said(frames) for message, frames in found.items()}


async def test_many_sockets_with_many_messages(servers: KeptServers) -> None:
    places = str(_SOCKETS * _MESSAGES)
    flags = ["--store", "memory", "--max-concurrent-requests", "64", "--max-queue-size", places]
    url = await asyncio.to_thread(servers.start, flags)
    try:
        process = psutil.Process(servers.pid)
        await _talk(url, _SOCKETS)  # what is loaded at the first use is there
        before = process.memory_info().rss
        talks = await asyncio.gather(*(_talk(url, number) for number in range(_SOCKETS)))
        growth = process.memory_info().rss - before
        found = {text: answer for talk in talks for text, answer in talk.items()}
        assert len(found) == _SOCKETS * _MESSAGES
        async with httpx.AsyncClient(base_url=url, timeout=LONG) as http:
            for text in random.Random(1).sample(sorted(found), _LOOKED_AT_AGAIN):
                asked = {"input": text, "max_output_tokens": _TOKENS, "store": False}
                alone = written((await http.post("/v1/responses", json=asked)).json())
                assert "".join(found[text]) == "".join(alone.values()), text
            assert (await http.get("/health")).json()["open_requests"] == 0
        print(f"{len(found)} answers: memory grew by {growth / 2**20:.0f} MiB")
        assert growth < _MAX_GROWTH
    finally:
        servers.kill()
    assert "Traceback" not in servers.log()


async def _rest(client: ClientConnection, heard: list[Any]) -> int | None:
    """Hears everything to the end of the connection. Returns the code that it ends with."""
    try:
        while True:
            heard.append(await hear(client))
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else closed.rcvd.code


@pytest.mark.parametrize("pace", ["0", "5"])
async def test_a_server_that_ends_says_goodbye(servers: KeptServers, pace: str) -> None:
    flags = ["--store", "memory", "--time-between-chunks", pace]
    flags += ["--max-concurrent-requests", "2", "--graceful-termination-timeout", "0"]
    url = await asyncio.to_thread(servers.start, flags)
    with servers.holding():
        async with dialled(url) as client:
            for identifier in range(4):
                await send(client, identifier, str(identifier))
            # As often with the name of a conversation: the second waits for its turn.
            for identifier in (4, 5):
                await send(client, identifier, "x", conversation="new")
            heard = [await hear(client)]
            while not (heard[-1]["text"] or "reasoning" in heard[-1]):
                heard.append(await hear(client))
            os.kill(servers.pid, signal.SIGTERM)
            code = await _rest(client, heard)
        await asyncio.to_thread(servers.stop)
    assert code == 1012
    last = {frame["id"]: frame for frame in heard}
    codes = {identifier: frame.get("error", {}).get("code") for identifier, frame in last.items()}
    assert codes == dict.fromkeys(range(6), "shutting_down"), last
    assert "Traceback" not in servers.log()


@pytest.mark.server("--store", "memory")
def test_an_engine_that_is_killed_fails_what_runs_only(own_server: RunningServer) -> None:
    asyncio.run(_kill(own_server))


async def _kill(server: RunningServer) -> None:
    async with dialled(server.url, "?conversation=new") as client:
        await send(client, 1, "Count", min_tokens=20_000)
        await send(client, 2, "Count", conversation=None, min_tokens=20_000)
        texts = set[int]()
        while len(texts) < 2:
            frame = await hear(client)
            texts |= {frame["id"]} if frame["text"] else set()
        server.engine().kill()
        for frames in (await answers(client, 2)).values():
            assert frames[-1]["error"]["code"].startswith("engine_"), frames[-1]
            assert frames[-1]["status"] == 503
        await asyncio.to_thread(
            wait_until, lambda: server.health()[0] == 200, "it is back", seconds=STARTUP_SECONDS
        )
        await send(client, 3, "Hello", max_tokens=4)
        frames = (await answers(client, 1))[3]
        assert frames[0]["conversation"].startswith("conv_")
        assert frames[-1]["finish_reason"] == "length"
