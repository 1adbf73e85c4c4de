"""Many answers in the background, each with readers that come and go, while the server stays well.

MILLSTREAM_ANSWERS: how many at once; 60 unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Self

import httpx
import psutil

from .kept import LONG, KeptServers, data_of, frames_of, number_of, said, written

_ANSWERS = int(os.environ.get("MILLSTREAM_ANSWERS", "60"))
_READERS = 3
_MAX_GROWTH = 200 * 2**20
_MAX_HEALTH_SECONDS = 5.0
"""Of a machine that does other things beside; alone it is a small part of that."""

_DOCTOR = """
import select, sys, time, urllib.request
while not select.select([sys.stdin], [], [], 0.05)[0]:
    before = time.monotonic()
    urllib.request.urlopen(sys.argv[1] + "/health", timeout=60).read()
    print(time.monotonic() - before)
"""


class Reader:
    """Reads one answer, leaves in the middle, and comes back until it has the end."""

    def __init__(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        self._http = http
        self._chance = chance
        self.num_visits = 0

    async def read(self, path: str) -> list[bytes]:
        """All events, in the order in which they came."""
        frames: list[bytes] = []
        while not frames or not _is_last(frames[-1]):
            self.num_visits += 1
            patience = self._chance.choice([1, 5, 30, 100, 1000])
            query = {"stream": "true"} | (
                {"starting_after": str(len(frames) - 1)} if frames else {}
            )
            async with self._http.stream("GET", path, params=query) as response:
                assert response.status_code == 200, await response.aread()
                async with contextlib.aclosing(frames_of(response)) as coming:
                    async for frame in coming:
                        frames.append(frame)
                        patience -= 1
                        if not patience:
                            break
        return frames


def _is_last(frame: bytes) -> bool:
    return b"\nevent: response.completed\n" in frame or b"\nevent: response.failed\n" in frame


class Doctor:
    """Asks all the time how a server is; in a process of its own, since this one is busy."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DOCTOR, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def leave(self) -> list[float]:
        """The seconds that each answer took."""
        said, _ = self._process.communicate("over", timeout=60)
        assert self._process.returncode == 0
        return [float(line) for line in said.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


async def _answer(http: httpx.AsyncClient, number: int) -> int:
    """One answer, begun and read. Returns how often its readers came."""
    chance = random.Random(number)
    asked = {"input": f"Story {number}", "background": True}
    begun = await http.post("/v1/responses", json=asked)
    assert begun.status_code == 200, begun.text
    path = f"/v1/responses/{begun.json()['id']}"
    readers = [Reader(http, random.Random(chance.random())) for _ in range(_READERS)]
    async with asyncio.TaskGroup() as group:
        reads = [group.create_task(reader.read(path)) for reader in readers]
    first, *others = [read.result() for read in reads]
    assert [number_of(frame) for frame in first] == list(range(len(first)))
    assert all(other == first for other in others)
    response: Any = (await http.get(path)).json()
    assert response["status"] == "completed"
    assert data_of(first[-1])["response"] == response
    assert said(first) == written(response)
    return sum(reader.num_visits for reader in readers)


async def test_many_answers_with_readers_that_come_and_go(tmp_path: Path) -> None:
    flags = ["--store", str(tmp_path / "store.db"), "--max-concurrent-requests", "64"]
    flags += ["--max-queue-size", str(_ANSWERS)]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    with KeptServers(tmp_path / "servers.log") as servers:
        url = await asyncio.to_thread(servers.start, flags)
        process = psutil.Process(servers.pid)
        client = httpx.AsyncClient(base_url=url, timeout=LONG, limits=limits)
        with Doctor(url) as doctor:
            async with client as http:
                await _answer(http, _ANSWERS)  # what is loaded at the first use is there
                before, began = process.memory_info().rss, time.monotonic()
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(_answer(http, n)) for n in range(_ANSWERS)]
                visits = [answer.result() for answer in answers]
                seconds = time.monotonic() - began
                after = process.memory_info().rss
                health = doctor.leave()
                body = (await http.get("/health")).json()
        print(
            f"{_ANSWERS} answers, {sum(visits)} visits of readers: {seconds:.1f} s, memory "
            f"{before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after, /health "
            f"{median(health):.3f} s, {max(health):.3f} s at most"
        )
        assert body["open_requests"] == 0
        assert after - before < _MAX_GROWTH
        assert max(health) < _MAX_HEALTH_SECONDS
        assert sum(visits) > _ANSWERS * _READERS, "some came back"
        servers.stop()
        assert "Traceback" not in servers.log()
