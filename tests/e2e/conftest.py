"""Server fixtures, and the check that no test leaks anything in any of the servers.

Servers are shared by the session: `demo_server` (default flags), `endless_server` (8 running and
8 waiting places, answers as long as asked for) and `small_server` (1 running, 2 waiting, 256 tokens
of context); the latter two send a comment after 0.2 s of silence. `start_server` makes one that the
test may ruin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import RunningServer
from .models import make_endless_model

StartServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def fleet() -> list[RunningServer]:
    """Every server the tests have started."""
    return []


@pytest.fixture(autouse=True)
def no_leak(fleet: list[RunningServer]) -> Iterator[None]:
    """After every test: nothing open, nothing queued, no block in use."""
    yield
    for server in fleet:
        if server.is_running:
            server.wait_idle()


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight model whose answers would take minutes if nobody stopped them."""
    return make_endless_model(tmp_path_factory.mktemp("models") / "endless", max_context=32_768)


@pytest.fixture(scope="session")
def demo_server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    yield from _serve(fleet, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def endless_server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> Iterator[RunningServer]:
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    flags += ["--max-concurrent-requests", "8", "--max_queue_size", "8"]
    flags += ["--ping-seconds", "0.2"]
    yield from _serve(fleet, tmp_path_factory.mktemp("endless"), *flags)


@pytest.fixture(scope="session")
def small_server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> Iterator[RunningServer]:
    flags = ["--model-id", str(endless_model), "--served-model-name", "small"]
    flags += ["--max-concurrent-requests", "1", "--max-queue-size", "2", "--ping-seconds", "0.2"]
    flags += ["--max-total-tokens", "256", "--payload-limit", "20000"]
    yield from _serve(fleet, tmp_path_factory.mktemp("small"), *flags)


@pytest.fixture
def start_server(
    fleet: list[RunningServer], tmp_path: Path, endless_model: Path
) -> Iterator[StartServer]:
    """Starts a server of the endless model with the given flags; the test may end it itself."""
    started: list[RunningServer] = []

    def start(*flags: str) -> RunningServer:
        common = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
        server = RunningServer([*common, *flags], tmp_path / f"server-{len(started)}.log")
        started.append(server)
        fleet.append(server)
        return server

    yield start
    for server in started:
        fleet.remove(server)
        if server.is_running:
            server.stop()
        else:
            server.kill()


def _serve(fleet: list[RunningServer], folder: Path, *flags: str) -> Iterator[RunningServer]:
    server = RunningServer(flags, folder / "server.log")
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()
