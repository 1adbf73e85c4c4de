"""Starting, watching and ending real server processes. Nothing here sleeps for a fixed time.

Every wait has a deadline and says what it waited for when it fails.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import psutil

from .warm import ENGINE_NAME, WarmProcess

STARTUP_SECONDS = 120.0
WAIT_SECONDS = 30.0
EXIT_SECONDS = 60.0
HTTP_WORKERS = int(os.environ.get("TEST_HTTP_WORKERS", "1"))
"""How many HTTP processes the servers of the tests have that do not say so themselves."""

_POLL_SECONDS = 0.02
_READY = re.compile(r"is ready on (https?://\S+)")
_CRASH = re.compile(r"Traceback|Fatal Python error|Segmentation fault|never retrieved")
COMMAND = (str(Path(sys.executable).with_name("millstream")),)


def wait_until(is_met: Callable[[], bool], what: str, *, seconds: float = WAIT_SECONDS) -> None:
    """Polls until `is_met()`; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_met():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(_POLL_SECONDS)


def open_files(pid: int) -> dict[int, str]:
    """What each descriptor of a process is, but for those that it closes meanwhile."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[int(descriptor.name)] = os.readlink(descriptor)
    return found


class RunningServer:
    """One `millstream serve` process."""

    def __init__(
        self,
        flags: Sequence[str],
        log_file: Path,
        *,
        command: Sequence[str] = COMMAND,
        variables: Mapping[str, str] = MappingProxyType({}),
        tls: ssl.SSLContext | None = None,
        is_awaited: bool = True,
        is_warm: bool = False,
    ) -> None:
        """Starts the server on a free port and waits for its announcement.

        variables: added to the environment. tls: what trusts the server, if it speaks HTTPS.
        is_awaited: if false, whoever uses the server calls `wait_ready()` first.
        is_warm: starts it in a second instead of ten, see `warm_program`; for tests to which the
        command itself does not matter.
        """
        self._log_file = log_file
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MILLSTREAM_")}
        environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        # Tests leave nothing where people keep their conversations.
        environment |= {"MILLSTREAM_STORE": "memory", **variables}
        # What is tried with several HTTP processes that says nothing of them (make test-workers).
        if HTTP_WORKERS > 1 and "memory" not in flags and "--http-workers" not in flags:
            environment["MILLSTREAM_HTTP_WORKERS"] = str(HTTP_WORKERS)
            if environment["MILLSTREAM_STORE"] == "memory":  # which processes cannot share
                environment["MILLSTREAM_STORE"] = str(log_file.with_suffix(".db"))
        arguments = ["--port", "0", "--threads", "1", *flags]
        self.process: subprocess.Popen[str] | WarmProcess
        with log_file.open("wb") as log:
            if is_warm:
                self.process = WarmProcess(arguments, environment, log)
            else:
                self.process = subprocess.Popen(
                    [*command, "serve", *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_stdout, daemon=True)
        self._reader.start()
        self._tls = tls
        if is_awaited:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until the server has said where it listens. To be called once."""
        try:
            self.url = self._read_url()
        except BaseException:
            self.kill()
            raise
        self._http = httpx.Client(
            base_url=self.url,
            timeout=WAIT_SECONDS,
            # A connection that has been idle may be closed just when it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=True if self._tls is None else self._tls,
        )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        """What the server and its engine wrote to standard error so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of GET /health."""
        response = self._http.get("/health")
        return response.status_code, response.json()

    def chat(self, content: str = "Count to 10", **fields: Any) -> httpx.Response:
        """One unstreamed request; greedy and short unless told otherwise."""
        body = {"messages": [{"role": "user", "content": content}]}
        body |= {"temperature": 0, "max_tokens": 8} | fields
        return self._http.post("/v1/chat/completions", json=body, timeout=60)

    def answer(self, content: str = "Count to 10", **fields: Any) -> str:
        """The text of an unstreamed answer."""
        response = self.chat(content, **fields)
        assert response.status_code == 200, response.text
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    def wait_open(self, count: int) -> None:
        """Waits until exactly `count` requests hold a place."""
        self._wait_health(f"{count} open", lambda body: body["open_requests"] == count)

    def wait_engine(self, **expected: int) -> None:
        """Waits until the engine's counters are as given (num_running=..., num_waiting=...)."""
        self._wait_health(f"{expected}", lambda body: expected.items() <= body["engine"].items())

    def wait_idle(self) -> None:
        """Waits until nothing is open, queued, running, and no block is in use."""
        self.wait_open(0)
        self.wait_engine(num_running=0, num_waiting=0, num_blocks_used=0, num_states_used=0)

    def engine(self) -> psutil.Process:
        """The engine's process."""
        found = self.engines()
        assert len(found) == 1, f"one engine process expected, found {found}"
        return found[0]

    def engines(self) -> list[psutil.Process]:
        """The engine's process, if it has been started."""
        children = psutil.Process(self.process.pid).children()
        return [
            p
            for p in children
            if p.is_running() and ("engine" in p.cmdline() or p.name() == ENGINE_NAME)
        ]

    @contextmanager
    def paused_engine(self) -> Iterator[None]:
        """Freezes the engine: accepted requests keep their places for as long as the test wants."""
        engine = self.engine()
        engine.suspend()
        try:
            yield
        finally:
            # It may have been killed meanwhile.
            with suppress(psutil.NoSuchProcess):
                engine.resume()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self, *, seconds: float = EXIT_SECONDS) -> int:
        """Waits for the process to end; its exit status."""
        return self.process.wait(timeout=seconds)

    def stop(self) -> None:
        """Ends the server as an operator would. Fails if it is not idle, or does not end well."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        try:
            self.wait_idle()
            self.signal(signal.SIGTERM)
            status = self.wait_exit()
            assert status == 0, f"exit status {status}\n{self.log()}"
            self.assert_gone(children)
            self.assert_clean_log()
        finally:
            self.kill(children)

    def kill(self, children: Sequence[psutil.Process] = ()) -> None:
        """Leaves nothing behind, whatever state the server is in."""
        self.process.kill()
        self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if hasattr(self, "_http"):
            self._http.close()

    def _wait_health(self, what: str, is_met: Callable[[dict[str, Any]], bool]) -> None:
        def check() -> bool:
            seen.append(self.health())
            return is_met(seen[-1][1])

        seen: list[tuple[int, dict[str, Any]]] = []
        try:
            wait_until(check, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; /health said {seen[-1]}") from None

    def assert_clean_log(self) -> None:
        """Fails if the server or its engine logged a crash."""
        assert not _CRASH.search(self.log()), self.log()

    @staticmethod
    def assert_gone(processes: Sequence[psutil.Process]) -> None:
        """Fails if any of the processes still runs after a moment."""
        _, alive = psutil.wait_procs(processes, timeout=WAIT_SECONDS)
        assert not alive, f"left behind: {alive}"

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_url(self) -> str:
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not ready in time\n{self.log()}") from None
            assert line is not None, f"ended before it was ready\n{self.log()}"
            if match := _READY.search(line):
                return match[1]
