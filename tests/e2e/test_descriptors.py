"""A server that is short of file descriptors: it goes on, and its engine can be started again.

It is the command itself, with default flags.
"""

from __future__ import annotations

import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from .harness import (
    COMMAND,
    HTTP_WORKERS,
    STARTUP_SECONDS,
    WAIT_SECONDS,
    RunningServer,
    wait_until,
)


@pytest.fixture(scope="module")
def server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    command = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *COMMAND]
    server = RunningServer([], tmp_path_factory.mktemp("few") / "server.log", command=command)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


def test_connections_leave_descriptors_for_an_engine(server: RunningServer) -> None:
    url, before = httpx.URL(server.url), server.log()
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
        assert "Too many open files" not in server.log().removeprefix(before)


def num_connections(server: RunningServer) -> int:
    """How many connections of clients a server has open, whatever state they are in."""
    found = psutil.Process(server.process.pid).net_connections(kind="inet")
    return sum(each.status != psutil.CONN_LISTEN for each in found)


@pytest.mark.skipif(HTTP_WORKERS > 1, reason="connections are not the first process's")
def test_an_engine_is_started_again_once_there_are_descriptors(server: RunningServer) -> None:
    # A connection that is there needs no descriptor of those that are short.
    with httpx.Client(base_url=server.url, timeout=WAIT_SECONDS) as kept:
        assert kept.get("/health").status_code == 200
        wait_until(lambda: num_connections(server) == 1, "others are closed, and not counted below")
        process = psutil.Process(server.process.pid)
        before = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds(), before[1]))
        server.engine().kill()
        wait_until(lambda: "Too many open files" in server.log(), "the log says why")
        assert kept.get("/health").json()["status"] == "restarting"
        process.rlimit(resource.RLIMIT_NOFILE, before)
        wait_until(
            lambda: kept.get("/health").status_code == 200, "it is back", seconds=STARTUP_SECONDS
        )
    assert server.answer("Hello")
