"""The store fails under running answers, and works again: what readers were told is what is kept,
whoever reads it, and whenever. Two servers on one store say the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.store.conftest import PostgreSQL, postgresql
from tests.store.test_failures import holding, small_disk

from .kept import LONG, KeptServers, data_of, frames_of, number_of, said, written

__all__ = ["postgresql", "small_disk"]

Fault = tuple[str, Callable[[], AbstractContextManager[None]]]
"""Where the store is, and what makes it fail for as long as it lasts."""

_RESUMABLE = {"X-Resumable": "true"}
_KINDS = ["background", "response", "chat", "alone"] * 2


@dataclass
class Reader:
    """Asks for an answer and reads its events. alone: nobody else may."""

    http: httpx.AsyncClient
    kind: str
    text: str
    frames: list[bytes] = field(default_factory=list)
    is_under_way: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def path(self) -> str:
        first = data_of(self.frames[0])
        if self.kind == "chat":
            return f"/v1/chat/completions/{first['id']}"
        return f"/v1/responses/{first['response']['id']}"

    @property
    def error(self) -> Any:
        """What the last event says went wrong, if it does."""
        last = data_of(self.frames[-1])
        return None if last is None else last.get("error") or last.get("response", {}).get("error")

    async def read(self) -> None:
        path, body = "/v1/responses", {"input": self.text, "stream": True}
        if self.kind == "chat":
            path = "/v1/chat/completions"
            body = {"messages": [{"role": "user", "content": self.text}], "stream": True}
        if self.kind == "background":
            body["background"] = True
        headers = _RESUMABLE if self.kind in ("response", "chat") else {}
        async with self.http.stream("POST", path, json=body, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            async for frame in frames_of(response):
                self.frames.append(frame)
                if _has_text(frame):
                    self.is_under_way.set()

    async def check_events(self, http: httpx.AsyncClient) -> None:
        """They can be read again, to the byte, from anywhere; beyond the last there is nothing."""
        last = len(self.frames) - 1
        assert [number_of(frame) for frame in self.frames] == list(range(last + 1))
        for after in (-1, last - 1, last):
            assert await events(http, self.path, after) == self.frames[after + 1 :]
        query = {"stream": "true"}
        headers = {"Last-Event-ID": str(last)}
        ended = await http.get(self.path, params=query, headers=headers)
        assert (ended.status_code, ended.content) == (204, b"")
        query["starting_after"] = str(last + 1)
        beyond = await http.get(self.path, params=query)
        assert beyond.status_code == 400
        assert beyond.json()["error"]["param"] == "starting_after"
        assert f"the last event is {last}" in beyond.json()["error"]["message"]


def _has_text(frame: bytes) -> bool:
    """Whether it brings some of the answer, or of the thought before it."""
    event = data_of(frame)
    if event is None or "type" in event:
        return event is not None and event["type"].endswith(".delta")
    return any(choice["delta"].get("reasoning_content") for choice in event.get("choices", ()))


async def events(http: httpx.AsyncClient, path: str, after: int) -> list[bytes]:
    query = {"stream": "true"} | ({} if after < 0 else {"starting_after": str(after)})
    async with http.stream("GET", path, params=query) as response:
        assert response.status_code == 200, await response.aread()
        return [frame async for frame in frames_of(response)]


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=LONG) as http:
        yield http


@contextlib.asynccontextmanager
async def under_way(
    servers: KeptServers, http: httpx.AsyncClient, kinds: Sequence[str]
) -> AsyncIterator[list[Reader]]:
    """Readers in the middle of their answers, which do not end before this does; at the end of
    theirs when it has ended."""
    readers = [Reader(http, kind, f"{kind} {number}") for number, kind in enumerate(kinds)]
    with servers.holding():
        reading = [asyncio.create_task(reader.read()) for reader in readers]
        await asyncio.gather(*(reader.is_under_way.wait() for reader in readers))
        yield readers
    await asyncio.gather(*reading)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServers]:
    with KeptServers(tmp_path_factory.mktemp("servers") / "log") as servers:
        yield servers


@pytest.fixture
def servers(parent: KeptServers) -> Iterator[KeptServers]:
    yield parent
    parent.clear()


@pytest.fixture
def full_disk(small_disk: Path) -> Fault:
    @contextlib.contextmanager
    def filled() -> Iterator[None]:
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))
        yield
        filler.unlink()

    return str(small_disk / "store.db"), filled


@pytest.fixture
def held_file(tmp_path: Path) -> Fault:
    return str(tmp_path / "store.db"), lambda: holding(tmp_path / "store.db")


@pytest.fixture
def stopped_server(postgresql: PostgreSQL) -> Fault:
    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        postgresql.stop()
        try:
            yield
        finally:
            postgresql.start()

    return postgresql.new_database(), stopped


@pytest.fixture(params=["full_disk", "held_file", "stopped_server"])
def fault(request: pytest.FixtureRequest) -> Fault:
    found: Fault = request.getfixturevalue(request.param)
    return found


async def test_a_store_that_fails_in_mid_answer(fault: Fault, servers: KeptServers) -> None:
    store, failing = fault
    flags = ["--store", store]
    servers.start(flags)
    async with client(servers.url) as http:
        before = await http.post("/v1/responses", json={"input": "before"})
        with contextlib.ExitStack() as fails:
            async with under_way(servers, http, _KINDS) as readers:
                await asyncio.to_thread(fails.enter_context, failing())
            await _check_while_it_fails(http, readers)
            await asyncio.to_thread(fails.close)
        for reader in readers:
            if reader.kind != "alone":
                await reader.check_events(http)
    servers.stop()
    servers.start(flags)
    async with client(servers.url) as http:
        await _check_afterwards(http, readers)
        assert (await http.get("/health/ready")).json()["store"] == "ok"
        path = f"/v1/responses/{before.json()['id']}"
        assert (await http.get(path)).json() == before.json()
    servers.stop()
    assert "Traceback" not in servers.log()


async def _check_while_it_fails(http: httpx.AsyncClient, readers: Sequence[Reader]) -> None:
    failed = [reader for reader in readers if reader.error is not None]
    assert {reader.error["code"] for reader in failed} == {"store_unavailable"}
    for reader in readers:
        if reader.error is not None and reader.kind in ("background", "response"):
            shown = (await http.get(reader.path)).json()
            assert shown == data_of(reader.frames[-1])["response"]
            assert all(item["status"] in ("completed", "incomplete") for item in shown["output"])
    large = os.urandom(20_000).hex()
    asked: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/responses", {"input": large}, 503),
        ("/v1/responses", {"input": large, "stream": True}, 503),
        ("/v1/responses", {"input": large, "background": True}, 503),
        ("/v1/conversations", {"items": [{"role": "user", "content": large}]}, 503),
        ("/v1/responses", {"input": "hi", "store": False}, 200),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, 200),
    ]
    answers = await asyncio.gather(*(http.post(path, json=body) for path, body, _ in asked))
    await _check_said_to_fail(http, {"items": asked[3][1]["items"]})
    assert [answer.status_code for answer in answers] == [status for _, _, status in asked]
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "store_unavailable"


async def _check_said_to_fail(http: httpx.AsyncClient, too_large: dict[str, Any]) -> None:
    """A full disk may still have room for a few bytes of somebody else, which then were the last
    that could be written, so it is asked again."""
    said = []
    for _ in range(20):
        assert (await http.post("/v1/conversations", json=too_large)).status_code == 503
        ready = await http.get("/health/ready")
        said.append((ready.status_code, ready.json()["store"]))
        if said[-1] == (200, "failing"):
            return
    raise AssertionError(said)


async def _check_afterwards(http: httpx.AsyncClient, readers: Sequence[Reader]) -> None:
    for reader in readers:
        if reader.kind != "alone":
            await reader.check_events(http)
        if reader.kind == "chat":
            continue
        kept = (await http.get(reader.path)).json()
        assert kept == data_of(reader.frames[-1])["response"]
        follows = await http.post(
            "/v1/responses",
            json={"input": "and on", "previous_response_id": kept["id"], "store": False},
        )
        assert follows.status_code == 200


async def test_two_servers_on_one_store(
    postgresql: PostgreSQL, servers: KeptServers, tmp_path: Path
) -> None:
    flags = ["--store", postgresql.new_database()]
    kinds = ["background", "response", "chat"]
    one = servers
    with KeptServers(tmp_path / "two") as two:
        one.start(flags)
        two.start(flags)
        async with client(one.url) as first, client(two.url) as second:
            async with under_way(one, first, kinds) as readers:
                elsewhere = [
                    asyncio.create_task(events(second, reader.path, 1)) for reader in readers
                ]
                refused = await second.post(f"{readers[0].path}/cancel")
                assert refused.status_code == 400
                assert "another server" in refused.json()["error"]["message"]
            for reader, seen in zip(readers, await asyncio.gather(*elsewhere), strict=True):
                assert seen == reader.frames[2:]
                await reader.check_events(second)
            with contextlib.suppress(httpx.TransportError):
                async with under_way(one, first, kinds) as readers:
                    one.kill()
            for reader in readers:
                await _check_dead_servers_answer(second, reader)


async def _check_dead_servers_answer(http: httpx.AsyncClient, reader: Reader) -> None:
    """Whoever waits for it at another server hears its end."""
    seen = await events(http, reader.path, -1)
    assert seen[: len(reader.frames)] == reader.frames
    reader.frames = seen
    await reader.check_events(http)
    assert reader.error["code"] == "server_restarted"
    if reader.kind != "chat":
        shown = (await http.get(reader.path)).json()
        assert shown == data_of(seen[-1])["response"]
        assert written(shown) == {index: text for index, text in said(seen).items() if text}
