"""A server that is short of file descriptors: it goes on, and its engine can be started again."""

from __future__ import annotations

import resource
import select
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from .harness import COMMAND, STARTUP_SECONDS, WAIT_SECONDS, RunningServer, wait_until


@pytest.mark.server(is_warm=False)
def test_an_engine_is_started_again_once_there_are_descriptors(own_server: RunningServer) -> None:
    assert own_server.health()[0] == 200
    process = psutil.Process(own_server.process.pid)
    before = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds(), before[1]))
    own_server.engine().kill()
    wait_until(lambda: "Too many open files" in own_server.log(), "the log says why")
    assert own_server.health()[1]["status"] == "restarting"
    process.rlimit(resource.RLIMIT_NOFILE, before)
    wait_until(lambda: own_server.health()[0] == 200, "it is back", seconds=STARTUP_SECONDS)
    assert own_server.answer("Hello")


def test_connections_leave_descriptors_for_an_engine(endless_model: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *COMMAND]
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    server = RunningServer(flags, tmp_path / "server.log", command=command)
    try:
        url = httpx.URL(server.url)
        with ExitStack() as stack:
            # Connections that are opened below are idle for 30 s.
            kept = stack.enter_context(httpx.Client(base_url=server.url, timeout=WAIT_SECONDS))

            def status() -> int:
                return kept.get("/health").status_code

            assert status() == 200
            clients: list[socket.socket] = []
            refused: list[socket.socket] = []
            while not refused:
                client = socket.create_connection((url.host, url.port), timeout=10)
                clients.append(stack.enter_context(client))
                refused, _, _ = select.select(clients, [], [], 0.01)
            refusals = refused[0].recv(1000)
            assert refusals.startswith(b"HTTP/1.1 429 ")
            assert b"too many connections" in refusals
            server.engine().kill()
            wait_until(lambda: status() == 503, "/health turns red")
            wait_until(lambda: status() == 200, "it is back", seconds=STARTUP_SECONDS)
            assert "Too many open files" not in server.log()
        server.stop()
    finally:
        server.kill()
