"""Mixed traffic of many clients, of whom some leave: nothing of it is left, and the books agree.

MILLSTREAM_SOAK_SECONDS: how long; 3 unless it says otherwise. MILLSTREAM_SOAK_CLIENTS: how many do
one thing after the other; 10 unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect

from .harness import RunningServer, open_files, wait_until
from .metrics import scraped
from .wire import LONG, messages

_SECONDS = float(os.environ.get("MILLSTREAM_SOAK_SECONDS", "3"))
_CLIENTS = int(os.environ.get("MILLSTREAM_SOAK_CLIENTS", "10"))
_PLACES = 8
_KV_CACHE_MIB = 64
# In bytes, of the server and of its engine, whose cache takes memory as blocks are first written.
_MAX_GROWTH = (40 * 2**20, (40 + _KV_CACHE_MIB) * 2**20)
_MAX_STORE_FILES = 16
_CHAT = "/v1/chat/completions"
_LEFT = re.compile(r" id=soak-\d+ .* answer=(\d+) ")


@pytest.fixture
def server(
    fleet: list[RunningServer], tmp_path: Path, endless_model: Path
) -> Iterator[RunningServer]:
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", f"{_KV_CACHE_MIB}MiB"]
    flags += ["--max-concurrent-requests", str(_PLACES // 2), "--max-queue-size", str(_PLACES // 2)]
    flags += ["--store", str(tmp_path / "store.db")]
    server = RunningServer(flags, tmp_path / "server.log", is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


class Soak:
    """Clients that do one thing after the other. ended: requests by (kind, detail), as /metrics
    names them. generated: tokens that clients were told of."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._chance = random.Random(seed)
        self.ended: Counter[tuple[str, str]] = Counter()
        self.generated = 0
        self._number = 0

    async def run(self, *, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as http:
            ways: list[Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]] = [
                *(self._whole, self._stream, self._leave, self._leave, self._cancel),
                *(self._several, self._respond, self._refused, self._talk),
            ]

            async def client() -> None:
                for way in ways:  # each at least once
                    await way(http)
                while asyncio.get_running_loop().time() < until:
                    await self._chance.choice(ways)(http)

            await asyncio.gather(*(client() for _ in range(_CLIENTS)))

    def _body(self, **fields: Any) -> dict[str, Any]:
        said = f"Tell me of {self._chance.randrange(50)}"
        count = self._chance.randrange(1, 12)
        return {"messages": messages(said), "max_tokens": count, "temperature": 0} | fields

    def _is_refused(self, response: httpx.Response) -> bool:
        """Books a refusal for want of a place; a client comes later then."""
        if response.status_code == 429:
            self.ended["refused", "overloaded"] += 1
            return True
        assert response.status_code == 200, response.text
        return False

    def _finished(self, usage: dict[str, Any], *reasons: str) -> None:
        self.generated += usage.get("completion_tokens", usage.get("output_tokens", 0))
        self.ended.update(("finished", reason) for reason in reasons)

    async def _post(self, http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
        response = await http.post(path, json=body)
        return None if self._is_refused(response) else response.json()

    async def _whole(self, http: httpx.AsyncClient) -> None:
        if said := await self._post(http, _CHAT, self._body()):
            self._finished(said["usage"], said["choices"][0]["finish_reason"])

    async def _several(self, http: httpx.AsyncClient) -> None:
        body = {"prompt": ["One", "Two"], "max_tokens": 3}
        if said := await self._post(http, "/v1/completions", body):
            self._finished(said["usage"], *(each["finish_reason"] for each in said["choices"]))

    async def _respond(self, http: httpx.AsyncClient) -> None:
        body = {"input": "Hello", "max_output_tokens": 4}
        if said := await self._post(http, "/v1/responses", body):
            self._finished(said["usage"], "length")

    async def _stream(self, http: httpx.AsyncClient) -> None:
        body = self._body(stream=True, stream_options={"include_usage": True})
        if text := await self._read(http, body):
            *_, finish, usage, done = re.findall("^data: (.*)$", text, re.MULTILINE)
            assert done == "[DONE]"
            reason = json.loads(finish)["choices"][0]["finish_reason"]
            self._finished(json.loads(usage)["usage"], reason)

    async def _read(self, http: httpx.AsyncClient, body: dict[str, Any]) -> str:
        response = await http.post(_CHAT, json=body)
        return "" if self._is_refused(response) else response.text

    async def _leave(self, http: httpx.AsyncClient) -> None:
        """After some events of an answer that would take minutes."""
        async with self._begun(http) as response:
            if not await self._is_open(response):
                return
            left = self._chance.choice([1, 2, 5, 20])
            async for line in response.aiter_lines():
                left -= line.startswith("data: ")
                if left <= 0:
                    break
        self.ended["cancelled", "reader_left"] += 1

    async def _cancel(self, http: httpx.AsyncClient) -> None:
        async with self._begun(http) as response:
            if not await self._is_open(response):
                return
            name = response.headers["x-request-id"]
            done = await http.post(f"{_CHAT}/{name}/cancel")
            assert done.status_code == 200
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
            assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "cancelled"
        self.ended["cancelled", "asked"] += 1

    def _begun(self, http: httpx.AsyncClient) -> Any:
        self._number += 1
        headers = {"x-request-id": f"soak-{self._number}"}
        body = self._body(stream=True, max_tokens=LONG, ignore_eos=True)
        return http.stream("POST", _CHAT, json=body, headers=headers)

    async def _is_open(self, response: httpx.Response) -> bool:
        if response.status_code != 200:
            await response.aread()
        return not self._is_refused(response)

    async def _refused(self, http: httpx.AsyncClient) -> None:
        assert (await http.post(_CHAT, json=self._body(nonsense=1))).status_code == 400
        self.ended["refused", "unknown_parameter"] += 1

    async def _talk(self, http: httpx.AsyncClient) -> None:
        async with connect(f"{self._url.replace('http', 'ws', 1)}/ws") as socket:
            await socket.send(json.dumps({"id": 1, "text": "Hello", "max_tokens": 3}))
            frame: dict[str, Any] = {}
            while not ("finish_reason" in frame or "error" in frame):
                frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if "error" in frame:
            assert frame["error"]["code"] == "overloaded"
            self.ended["refused", "overloaded"] += 1
        else:
            self._finished(frame["usage"], frame["finish_reason"])


def _files_beside_the_store(pid: int) -> int:
    """Open files but for those of the store: its connections are made as they are needed and kept,
    and there is a limit to them."""
    targets = list(open_files(pid).values())
    beside = [target for target in targets if "store.db" not in target]
    assert len(targets) - len(beside) < _MAX_STORE_FILES
    return len(beside)


def _tasks(server: RunningServer) -> float:
    return scraped(server).total("millstream_asyncio_tasks")


def test_mixed_traffic_leaves_nothing_and_the_books_agree(server: RunningServer) -> None:
    processes = [psutil.Process(server.process.pid), server.engine()]

    def files() -> list[int]:
        return [_files_beside_the_store(process.pid) for process in processes]

    def memory() -> list[int]:
        return [process.memory_info().rss for process in processes]

    warm = Soak(server.url, seed=0)  # what is loaded or opened at the first use is there
    asyncio.run(warm.run(seconds=_SECONDS / 10))
    server.wait_idle()
    opened, taken, tasks = files(), memory(), _tasks(server)
    soak = Soak(server.url, seed=1)
    asyncio.run(soak.run(seconds=_SECONDS))
    server.wait_idle()
    # Fewer, where a connection was still being closed when they were counted.
    wait_until(
        lambda: all(now <= then for now, then in zip(files(), opened, strict=True)),
        f"no more files are open than {opened}",
    )
    wait_until(lambda: _tasks(server) <= tasks, f"tasks are {tasks:g} again")
    growth = [after - before for before, after in zip(taken, memory(), strict=True)]

    ended = warm.ended + soak.ended
    left = ended["cancelled", "reader_left"] + ended["cancelled", "asked"]
    wait_until(lambda: len(_LEFT.findall(server.log())) == left, "all are in the log")
    told = warm.generated + soak.generated + sum(map(int, _LEFT.findall(server.log())))
    print(f"{ended.total()} requests, {told} tokens, memory grew by {growth} bytes: {dict(ended)}")
    print(f"open files are {opened}, tasks {tasks:g} as before, memory was {taken} bytes")
    samples = scraped(server)
    labels = {"finished": "finish_reason", "cancelled": "cause", "refused": "code"}
    for kind, label in labels.items():
        expected = {detail: n for (each, detail), n in ended.items() if each == kind}
        assert samples.by(f"millstream_requests_{kind}_total", label) == expected
    assert samples.by("millstream_requests_failed_total", "code") == {}
    assert samples.total("millstream_generated_tokens_total") == told
    assert all(grown < limit for grown, limit in zip(growth, _MAX_GROWTH, strict=True)), growth
