"""Servers of tests/e2e/kept_server.py, one at a time, and what their clients note."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx

_READY = re.compile(rb"is ready on (http://\S+)")
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 300.0
CALLED = "now"
"""The tool that some stories call. Prompts offer no other."""
LONG = httpx.Timeout(60)


class KeptServers:
    """The program that starts them, and the one that runs. As a context, leaves nothing behind.

    program: the module that is run. variables: added to its environment.
    """

    def __init__(
        self,
        log_file: Path,
        *,
        program: str = "tests.e2e.kept_server",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._log_file = log_file
        self._hold = log_file.with_name(f"{log_file.name}.hold")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MILLSTREAM_")}
        with log_file.open("wb") as log:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", program],
                cwd=_ROOT,
                env={
                    **environment,
                    "PYTHONUNBUFFERED": "1",
                    "MILLSTREAM_HOLD": str(self._hold),
                    **variables,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        self._pid: int | None = None
        self._is_struck = False
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()
        self._parent.kill()
        self._parent.wait()
        for pipe in (self._parent.stdin, self._parent.stdout):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        assert self._pid is not None, "a server runs"
        return self._pid

    @contextmanager
    def holding(self) -> Iterator[None]:
        """No answer ends for as long as this lasts; each stands still after its first words."""
        self._hold.touch()
        try:
            yield
        finally:
            self._hold.unlink()

    def log(self) -> str:
        """What all servers so far have logged."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def begin(self, flags: Sequence[str]) -> None:
        """Starts a server, which is not ready yet."""
        assert self._pid is None, "one at a time"
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(["--port", "0", *flags]).encode() + b"\n")
        self._pid = int(self._line())
        self._is_struck = False

    def start(self, flags: Sequence[str]) -> str:
        """Starts a server and waits until it is ready. Returns its URL."""
        self.begin(flags)
        watchdog = threading.Timer(_START_SECONDS, self._parent.kill)
        watchdog.start()
        try:
            while not (match := _READY.search(self._line())):
                pass
        finally:
            watchdog.cancel()
        self.url = match[1].decode()
        return self.url

    def strike(self) -> None:
        """Kills the server at once and waits for nothing."""
        # Once: the id may be another process's by now.
        if not self._is_struck:
            os.kill(self.pid, signal.SIGKILL)
            self._is_struck = True

    def kill(self) -> None:
        """Kills the server and waits until it is gone."""
        self.strike()
        self._wait_over()

    def stop(self) -> None:
        """Ends the server as an operator would."""
        os.kill(self.pid, signal.SIGTERM)
        self._wait_over()

    def clear(self) -> None:
        """Leaves no server behind, whatever a test has left."""
        if self._pid is not None:
            self.kill()

    def _wait_over(self) -> None:
        while self._line() != b"over\n":
            pass
        self._pid = None

    def _line(self) -> bytes:
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        assert line, f"the program ended\n{self.log()}"
        return line


async def frames_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The events of a stream, each as its bytes; comments are left out."""
    rest = b""
    async for part in response.aiter_bytes():
        *frames, rest = (rest + part).split(b"\n\n")
        for frame in frames:
            if not frame.startswith(b":"):
                yield frame + b"\n\n"
    assert not rest, "a stream ends with an event"


def number_of(frame: bytes) -> int:
    """The number that an event has as its id."""
    match = re.match(rb"id: (\d+)\n", frame)
    assert match, frame
    return int(match[1])


def data_of(frame: bytes) -> Any:
    """The data of an event; None for the end of a completion's stream."""
    data = frame.partition(b"data: ")[2]
    return None if data == b"[DONE]\n\n" else json.loads(data)


def said(frames: Sequence[bytes]) -> dict[int, str]:
    """What the deltas of a response's events add up to, for each item of its output."""
    texts: dict[int, str] = {}
    for event in map(data_of, frames):
        if event["type"].endswith(".delta"):
            index = event["output_index"]
            texts[index] = texts.get(index, "") + event["delta"]
    return texts


def written(response: Any) -> dict[int, str]:
    """What the items of a response's output say; those that say nothing are left out."""
    texts = {}
    for index, item in enumerate(response["output"]):
        parts = [part["text"] for part in item.get("content", ())]
        texts[index] = "".join(parts) + item.get("arguments", "")
    return {index: text for index, text in texts.items() if text}
