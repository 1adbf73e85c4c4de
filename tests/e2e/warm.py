"""Servers of tests/e2e/warm_program.py, each with what a `subprocess.Popen` has."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parents[2]
ENGINE_NAME = "engine"
"""The name of an engine's process; its command is that of the program that forked it."""
TRIAL_SECONDS = "WARM_TRIAL_SECONDS"
"""The environment's name for how long such a server tries a chat template, if not its own time."""


class WarmProcess:
    """A server's process."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]
    ) -> None:
        output, output_end = os.pipe()
        status, status_end = os.pipe()
        request = json.dumps([list(arguments), dict(environment)]).encode()
        socket.send_fds(_program(), [request], [output_end, errors.fileno(), status_end])
        for each in (output_end, status_end):
            os.close(each)
        self.stdout = open(output, encoding="utf-8")  # noqa: SIM115
        self._status = open(status, encoding="ascii")  # noqa: SIM115
        line = self._status.readline()
        assert line, "the program that starts servers ended"
        self.pid = int(line)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, once there is one."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("millstream serve", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode


@cache
def _program() -> socket.socket:
    """Where to ask for servers; the program is started when the first is wanted."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # A fork keeps one thread, and BLAS starts some when it is imported.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.e2e.warm_program", str(its.fileno())]
    program = subprocess.Popen(command, cwd=_ROOT, env=environment, pass_fds=[its.fileno()])
    its.close()

    def end() -> None:
        ours.close()
        program.wait()

    atexit.register(end)
    return ours
