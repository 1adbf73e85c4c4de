"""Two replicas behind the router smg, as docs/scale.md says."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import RunningServer, wait_until

PLACES = ("Oslo", "Rome", "Lima", "Cairo")
FLAGS = ["--max-concurrent-requests", "8", "--kv-cache-memory", "64MiB", "--store", "off"]


@dataclass
class Scaled:
    """A router, and the replicas behind it."""

    url: str
    replicas: list[RunningServer]

    def ask(self, text: str) -> httpx.Response:
        said = [{"role": "user", "content": text}]
        body = {"model": "millstream-demo", "messages": said, "max_tokens": 4}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def scaled(server_python: str, tmp_path: Path) -> Iterator[Scaled]:
    command = [server_python, "-m", "millstream"]
    logs = [tmp_path / f"replica-{number}.log" for number in range(2)]
    replicas = [RunningServer(FLAGS, log, command=command, is_awaited=False) for log in logs]
    for replica in replicas:
        replica.wait_ready()
    port = free_port()
    router = [str(Path(sys.executable).with_name("smg")), "launch", "--policy", "cache_aware"]
    router += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    router += ["--worker-urls", *(replica.url for replica in replicas)]
    with (tmp_path / "smg.log").open("wb") as log:
        process = subprocess.Popen(router, stdout=log, stderr=log)
    scaled = Scaled(f"http://127.0.0.1:{port}", replicas)
    try:
        wait_until(lambda: num_healthy(scaled) == 2, "it knows both replicas")
        yield scaled
    finally:
        process.kill()
        process.wait()
        for replica in replicas:
            replica.kill()


def num_healthy(scaled: Scaled) -> int:
    with suppress(httpx.TransportError):
        workers = httpx.get(f"{scaled.url}/workers").json().get("workers", [])
        return sum(worker["is_healthy"] for worker in workers)
    return 0


def cached(response: httpx.Response) -> int:
    assert response.status_code == 200, response.text
    usage: dict[str, Any] = response.json()["usage"]
    tokens: int = usage["prompt_tokens_details"]["cached_tokens"]
    return tokens


def test_a_prefix_stays_with_its_replica_and_nothing_is_lost(scaled: Scaled) -> None:
    beginnings = [" ".join([f"Tell me of {place} and its rivers."] * 12) for place in PLACES]
    for number in range(4):
        hits = [cached(scaled.ask(f"{text} Question {number}?")) for text in beginnings]
        assert all(hits) if number else not any(hits), hits
    used = [replica.health()[1]["engine"]["num_blocks_cached"] for replica in scaled.replicas]
    assert all(used), "both have work"
    # One that drains says so, and what comes meanwhile goes to the other.
    scaled.replicas[0].signal(signal.SIGTERM)
    assert [scaled.ask(f"Hello {n}").status_code for n in range(12)] == [200] * 12
    assert scaled.replicas[0].wait_exit() == 0
