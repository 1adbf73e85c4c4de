"""The places in which an engine lives: a process of its own, or a thread of this one.

A host starts one engine on an endpoint and tells when it is gone. It knows nothing of messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import zmq

from millstream.runtime.engine_side import run_engine
from millstream.runtime.runner_protocol import Runner

log = logging.getLogger(__name__)


class EngineHost(Protocol):
    """One engine at a time; `start()` may be called again once `wait()` returned."""

    def endpoint(self) -> str:
        """The address of the next engine, which nobody else has."""
        ...

    async def start(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None: ...

    async def wait(self) -> str:
        """Returns when the engine is gone, with one line that says how it ended."""
        ...

    def kill(self) -> None:
        """Ends the engine at once, if it can be ended from outside."""
        ...


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
        # Intentional: no file on Linux but a name of the kernel's. It is short wherever temporary
        # files are, and gone with the process, however that ends.
        place = "@" if sys.platform == "linux" else "/tmp/"
        return f"ipc://{place}millstream-{secrets.token_hex(16)}"

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

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class ThreadHost:
    """Runs the engine in a daemon thread; for tests and for embedding."""

    def __init__(
        self,
        *,
        build_runner: Callable[[], Runner],
        max_running: int,
        max_queue_seconds: float | None = None,
        speculate: int | None = None,
    ) -> None:
        """The arguments are those of `run_engine()`."""
        self._build_runner = build_runner
        self._max_running = max_running
        self._max_queue_seconds = max_queue_seconds
        self._speculate = speculate
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._how = ""

    def endpoint(self) -> str:
        return f"inproc://{secrets.token_hex(16)}"

    async def start(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, args=(context, endpoint, loop), name="engine", daemon=True
        )
        self._thread.start()

    def _run(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        how = "engine thread ended"
        try:
            run_engine(
                context=context,
                endpoint=endpoint,
                build_runner=self._build_runner,
                max_running=self._max_running,
                max_queue_seconds=self._max_queue_seconds,
                speculate=self._speculate,
            )
        except BaseException as error:  # what would end a process ends this thread, and is told
            log.exception("the engine thread failed")
            how = f"engine thread ended with {type(error).__name__}"
        finally:
            self._how = how
            with contextlib.suppress(RuntimeError):  # the event loop may be closed already
                loop.call_soon_threadsafe(self._ended.set)

    async def wait(self) -> str:
        assert self._thread is not None, "wait() before start()"
        await self._ended.wait()
        self._thread.join()  # it has said its last word, so this takes no time
        return self._how

    def kill(self) -> None:
        """Intentional: nothing. A thread cannot be ended from outside."""
