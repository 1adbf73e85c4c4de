"""Two replicas behind the router smg, as docs/scale.md says."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import RunningServer, wait_until

PLACES = ("Oslo", "Rome", "Lima", "Cairo")
BEGINNING = " ".join(["Tell me of Oslo and its rivers."] * 12)
FLAGS = ["--max-concurrent-requests", "8", "--kv-cache-memory", "64MiB", "--store", "off"]
FEW_PLACES = [*FLAGS, "--max-concurrent-requests", "2", "--max-queue-size", "0"]
LONG = {"max_tokens": 1500, "ignore_eos": True, "stream": True}


@dataclass
class Scaled:
    """A router, and the replicas behind it."""

    url: str
    replicas: list[RunningServer]

    def ask(self, text: str) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=body_of(text), timeout=60)

    def home(self) -> tuple[RunningServer, RunningServer]:
        """The replica that has answered, the only one so far, and the other."""
        first, second = self.replicas
        has_answered = first.health()[1]["engine"]["num_blocks_cached"] > 0
        return (first, second) if has_answered else (second, first)


def body_of(text: str, **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    return {"model": "millstream-demo", "messages": said, "max_tokens": 4} | fields


@contextmanager
def answering(url: str, text: str) -> Iterator[Iterator[str]]:
    """A long stream that has begun: its lines."""
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=body_of(text, **LONG), timeout=60
    ) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        next(lines)
        yield lines


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def scaled(request: pytest.FixtureRequest, server_python: str, tmp_path: Path) -> Iterator[Scaled]:
    flags = getattr(request, "param", FLAGS)
    command = [server_python, "-m", "millstream"]
    logs = [tmp_path / f"replica-{number}.log" for number in range(2)]
    replicas = [RunningServer(flags, log, command=command, is_awaited=False) for log in logs]
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


@pytest.mark.parametrize("scaled", [FEW_PLACES], indirect=True)
def test_a_full_one_is_passed_over(scaled: Scaled) -> None:
    assert scaled.ask(BEGINNING).status_code == 200
    home, other = scaled.home()
    with ExitStack() as held:
        fill(home, held)
        answers = [scaled.ask(f"{BEGINNING} Question {number}?") for number in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert cached(answers[-1]) > 0, "the other has the beginning now, too"
        fill(other, held)
        refused = scaled.ask(BEGINNING)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1


def fill(replica: RunningServer, held: ExitStack) -> None:
    """Takes all places of a replica, and stops its engine, so that they stay taken."""
    for _ in range(2):
        held.enter_context(answering(replica.url, "Count to 100"))
    held.enter_context(replica.paused_engine())
    assert replica.chat().status_code == 429


def test_a_killed_one_loses_its_streams_and_no_others(scaled: Scaled) -> None:
    assert scaled.ask(BEGINNING).status_code == 200
    home, other = scaled.home()
    with (
        answering(scaled.url, BEGINNING) as lost,
        answering(other.url, "Count to 100") as kept,
    ):
        with home.paused_engine():
            assert home.health()[1]["open_requests"] == 1, "its stream is not over"
            engine = home.engine()
            home.signal(signal.SIGKILL)
            home.wait_exit()
        home.assert_gone([engine])
        answers = [scaled.ask(f"{BEGINNING} Question {number}?") for number in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 6
        # The router tells the end of the stream, and writes the sign of success after it.
        *_, error, done = [line.removeprefix("data: ") for line in lost if line]
        assert json.loads(error)["error"]["type"] == "stream_error"
        assert done == "[DONE]"
        assert [line for line in kept if line][-1] == "data: [DONE]"
