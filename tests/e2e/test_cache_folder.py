"""--cache-folder: conversations go on after a server was stopped, killed, or lost its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .harness import RunningServer, wait_until

Messages = list[dict[str, str]]

SEEDED = {"temperature": 1.0, "seed": 11}


class Servers:
    """Servers that follow each other on one folder."""

    def __init__(self, fleet: list[RunningServer], folder: Path, model: Path) -> None:
        self._fleet, self._folder = fleet, folder
        self._num_started = 0
        self.cache = folder / "cache"
        self._flags = ["--model-id", str(model), "--kv-cache-memory", "64MiB"]
        self._flags += ["--cache-folder", str(self.cache), "--cache-folder-bytes", "64MiB"]

    def start(self) -> RunningServer:
        self._num_started += 1
        log = self._folder / f"server-{self._num_started}.log"
        server = RunningServer(self._flags, log, is_warm=True)
        self._fleet.append(server)
        return server

    def stop(self, server: RunningServer) -> None:
        self._fleet.remove(server)
        server.stop()

    def kill(self, server: RunningServer) -> None:
        """Ends the server as kill -9 does; its engine goes with it."""
        self._fleet.remove(server)
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        server.assert_gone(children)
        server.kill()

    def files(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def servers(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> Servers:
    return Servers(fleet, tmp_path_factory.mktemp("kept"), endless_model)


@pytest.fixture(scope="module")
def second(servers: Servers) -> Iterator[RunningServer]:
    """The server after one that was killed when it had answered, and had written that."""
    first = servers.start()
    assert archive(first)["num_blocks"] == 0
    for topic in ("ships", "stones"):
        assert ask(first, history(topic))[1] == 0
    wait_until(lambda: archive(first)["num_written"] >= 20, "blocks are written")
    first.wait_idle()
    servers.kill(first)
    server = servers.start()
    yield server
    if server.is_running:
        servers.stop(server)


@pytest.fixture(scope="module")
def third(servers: Servers, second: RunningServer) -> Iterator[RunningServer]:
    """The server after one that was stopped when it had answered. Older files are damaged."""
    before = servers.files()
    ask(second, history("rivers"))
    servers.stop(second)  # at once: what is to be written still is
    for path in before:
        damage(path)
    server = servers.start()
    yield server
    servers.stop(server)


def history(topic: str) -> Messages:
    """A conversation of about 200 tokens."""
    told = f"I know much of {topic}, and of what others have said about {topic}. " * 6
    return [
        {"role": "user", "content": f"Tell me of {topic}."},
        {"role": "assistant", "content": told},
        {"role": "user", "content": "Go on."},
    ]


def next_turn(messages: Messages) -> Messages:
    return [*messages, {"role": "assistant", "content": "So it is."}, messages[0]]


def ask(server: RunningServer, messages: Messages, **fields: Any) -> tuple[str, int]:
    """The text of an answer, and how many tokens of its prompt were cached."""
    response = server.chat(messages=messages, max_tokens=40, **fields)
    assert response.status_code == 200, response.text
    body = response.json()
    cached: int = body["usage"]["prompt_tokens_details"]["cached_tokens"]
    return body["choices"][0]["message"]["content"], cached


def archive(server: RunningServer) -> dict[str, int]:
    """What /health says of the files."""
    found: dict[str, int] = server.health()[1]["engine"]["archive"]
    return found


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def assert_goes_on(
    server: RunningServer, topic: str, *, like: RunningServer, is_kept: bool, **fields: Any
) -> None:
    """The next turn is answered as another server does that computes it anew."""
    messages = next_turn(history(topic))
    text, cached = ask(server, messages, **fields)
    assert (cached > 150) == is_kept, cached
    assert text == ask(like, messages, **fields)[0]


def test_conversations_go_on_after_a_kill(
    servers: Servers, second: RunningServer, endless_server: RunningServer
) -> None:
    assert {path.stat().st_mode & 0o777 for path in servers.files()} == {0o600}
    assert_goes_on(second, "ships", like=endless_server, is_kept=True)
    assert_goes_on(second, "stones", like=endless_server, is_kept=True, **SEEDED)
    assert archive(second)["num_read"] >= 20


def test_conversations_go_on_after_a_stop(
    third: RunningServer, endless_server: RunningServer
) -> None:
    assert_goes_on(third, "rivers", like=endless_server, is_kept=True)


def test_damaged_files_are_computed_again(
    third: RunningServer, endless_server: RunningServer
) -> None:
    assert_goes_on(third, "ships", like=endless_server, is_kept=False)
    assert archive(third)["num_damaged"] == 1, "the rest of a chain is of no use"
    assert third.log().count("cannot be used and is dropped") == 1


def test_what_cannot_be_written_is_still_in_memory(
    servers: Servers, third: RunningServer, endless_server: RunningServer
) -> None:
    folder = servers.cache / "prefix-blocks"
    folder.rename(servers.cache / "moved")
    folder.write_text("not a folder")
    for topic in ("towers", "walls"):
        ask(third, history(topic))
        assert_goes_on(third, topic, like=endless_server, is_kept=True)
    wait_until(lambda: archive(third)["num_skipped"] >= 20, "what is not kept is counted")
    assert third.log().count("cannot be written") == 1
