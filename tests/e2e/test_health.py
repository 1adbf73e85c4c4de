"""What probes are told while a server starts, gets stuck and ends, and what it ends with."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from millstream.runtime.stuck_stacks import stacks_of

from .harness import STARTUP_SECONDS, RunningServer, wait_until
from .wire import open_stream


def asked(url: str, path: str) -> tuple[int, dict[str, Any]]:
    response = httpx.get(f"{url}/health{path}", timeout=30)
    return response.status_code, response.json()


@pytest.mark.server("--engine-timeout", "20", "--store", "off")
def test_a_stuck_engine_and_an_end(own_server: RunningServer) -> None:
    url = own_server.url
    idle = {"status": "ready", "seconds_since_step": None, "store": "off", "start": None}
    assert asked(url, "/ready") == (200, idle)
    with open_stream(own_server) as reader:
        reader.next()
        assert "in run_engine" in asyncio.run(stacks_of(own_server.engine().pid))
        with own_server.paused_engine():
            wait_until(lambda: asked(url, "/ready")[0] == 503, "it is not ready")
            status, body = asked(url, "")
            assert (status, body["status"]) == (503, "stuck")
            assert asked(url, "/ready")[1]["seconds_since_step"] > 2.0
            assert asked(url, "/live") == (200, {"status": "live"})
        wait_until(lambda: asked(url, "/ready")[0] == 200, "it is ready again")
        assert asked(url, "/ready")[1]["seconds_since_step"] < 2.0
        own_server.signal(signal.SIGTERM)
        wait_until(lambda: asked(url, "/ready")[0] == 503, "it drains")
        assert asked(url, "/ready")[1]["status"] == "shutting_down"
        assert asked(url, "/live") == (200, {"status": "live"})
    assert own_server.wait_exit() == 0


@pytest.mark.server("--max-engine-restarts", "1", "--store", "off")
def test_an_engine_that_ends_again_and_again(own_server: RunningServer) -> None:
    own_server.engine().kill()
    wait_until(lambda: own_server.health()[0] == 503, "it restarts")
    _, body = own_server.health()
    assert body["start"]["step"]
    wait_until(lambda: own_server.health()[0] == 200, "it is back", seconds=STARTUP_SECONDS)
    own_server.engine().kill()
    assert own_server.wait_exit() == 3
    last = own_server.log().splitlines()[-1]
    assert last == (
        "millstream: the engine cannot go on: engine process ended with signal 9; 2 engines in a "
        "row have ended soon"
    )
    own_server.assert_clean_log()


def ports_of(server: RunningServer) -> list[int]:
    """The ports on which a server listens."""
    connections = psutil.Process(server.process.pid).net_connections(kind="inet")
    return [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]


def test_how_far_a_start_is(tmp_path: Path, endless_model: Path) -> None:
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    server = RunningServer(flags, tmp_path / "server.log", is_awaited=False, is_warm=True)
    try:
        wait_until(lambda: bool(server.engines()), "it has an engine", seconds=STARTUP_SECONDS)
        with server.paused_engine():  # it is surely not ready
            wait_until(lambda: bool(ports_of(server)), "it listens", seconds=STARTUP_SECONDS)
            url = f"http://127.0.0.1:{ports_of(server)[0]}"
            status, body = asked(url, "/ready")
            assert (status, body["status"]) == (503, "loading")
            assert set(body["start"]) == {"step", "fraction"}
            assert asked(url, "/live") == (200, {"status": "live"})
        server.wait_ready()
        status, body = asked(url, "/ready")
        assert (status, body["status"], body["start"]) == (200, "ready", None)
        assert body["store"] == "ok"
    finally:
        server.kill()
