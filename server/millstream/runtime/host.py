"""The place in which an engine lives: a process of its own. `thread_host.py` has the other one.

A host starts one engine on an endpoint and tells when it is gone. It knows nothing of messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

import zmq

from millstream.runtime.stuck_stacks import stacks_of


class EngineHost(Protocol):
    """One engine at a time; `start()` may be called again once `wait()` returned."""

    def endpoint(self) -> str:
        """The address of the next engine, which nobody else has."""
        ...

    async def start(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None: ...

    async def wait(self) -> str:
        """Returns when the engine is gone, with one line that says how it ended."""
        ...

    async def stacks(self) -> str:
        """The stacks of the engine's threads; empty if they cannot be had."""
        ...

    def kill(self) -> None:
        """Ends the engine at once, if it can be ended from outside."""
        ...


def new_endpoint() -> str:
    """An address for a socket between two processes, which nobody else has."""
    # Intentional: no file on Linux but a name of the kernel's. It is short wherever temporary
    # files are, and gone with the process, however that ends.
    place = "@" if sys.platform == "linux" else "/tmp/"
    return f"ipc://{place}millstream-{secrets.token_hex(16)}"


class ProcessHost:
    """Runs `command + [endpoint]` as a child that dies with us and ignores our terminal.

    environment: variables for the child, where ours does not set them already.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = {**environment, **os.environ}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def endpoint(self) -> str:
        return new_endpoint()

    async def start(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        # Intentional: its own session, so that Ctrl-C reaches only us and we can drain; its
        # standard input is a pipe that closes when we die (see `exit_with_parent`).
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            endpoint,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def wait(self) -> str:
        assert self._process is not None, "wait() before start()"
        code = await self._process.wait()
        return f"engine process ended with {f'signal {-code}' if code < 0 else f'status {code}'}"

    async def stacks(self) -> str:
        return "" if self.pid is None else await stacks_of(self.pid)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
