"""Server fixtures, and the check that no test leaks anything in any of the servers.

Servers are shared by the session: `demo_server` (default flags), `endless_server` (8 running and 8
waiting places, answers as long as asked for) and `small_server` (1 running, 2 waiting, 256 tokens
of context); the latter two send a comment after 0.2 s of silence.
`own_server` is one that the test may ruin, with the flags of its `server` mark; it starts while the
test before it runs.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .harness import RunningServer
from .models import make_endless_model


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "server(*flags): the test's `own_server`")
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # As under nohup. Servers would inherit that, but not a function that does nothing.
        signal.signal(signal.SIGHUP, lambda number, frame: None)


class OwnServers:
    """Servers of the endless model, one for each test that has a `server` mark.

    A server takes seconds to start and one processor to do it, and a test mostly waits. Thus the
    server of the next such test is started together with the one that is asked for.
    """

    def __init__(self, items: Sequence[pytest.Item], folder: Path, model: Path) -> None:
        marks = {item.nodeid: item.get_closest_marker("server") for item in items}
        self._marks = {test: mark for test, mark in marks.items() if mark is not None}
        self._order = list(self._marks)
        self._folder = folder
        self._common = ["--model-id", str(model), "--kv-cache-memory", "64MiB"]
        self._started: dict[str, RunningServer] = {}

    def take(self, test: str) -> RunningServer:
        """The server of the test with this node id, ready; the caller ends it."""
        number = self._order.index(test)
        file = test.partition("::")[0]
        for each in self._order[number : number + 2]:
            # The next file's tests may be another worker's.
            if each not in self._started and each.startswith(file):
                self._started[each] = self._start(each)
        server = self._started.pop(test)
        server.wait_ready()
        return server

    def close(self) -> None:
        """Ends the servers that no test has taken."""
        for server in self._started.values():
            server.wait_ready()
            server.stop()

    def _start(self, test: str) -> RunningServer:
        log = self._folder / f"server-{self._order.index(test)}.log"
        flags = [*self._common, *self._marks[test].args]
        return RunningServer(flags, log, is_awaited=False, is_warm=True)


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


@pytest.fixture(scope="session")
def own_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> Iterator[OwnServers]:
    servers = OwnServers(request.session.items, tmp_path_factory.mktemp("own"), endless_model)
    yield servers
    servers.close()


@pytest.fixture
def own_server(
    request: pytest.FixtureRequest, fleet: list[RunningServer], own_servers: OwnServers
) -> Iterator[RunningServer]:
    """A server of the endless model with the flags of the test's mark; the test may end it."""
    server = own_servers.take(request.node.nodeid)
    fleet.append(server)
    yield server
    fleet.remove(server)
    if server.is_running:
        server.stop()
    else:
        server.kill()


def _serve(fleet: list[RunningServer], folder: Path, *flags: str) -> Iterator[RunningServer]:
    server = RunningServer(flags, folder / "server.log", is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()
