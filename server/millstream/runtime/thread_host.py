"""An engine in a thread of this process, for programs that embed it and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import Callable

import zmq

from millstream.runtime.engine_side import run_engine
from millstream.runtime.runner_protocol import Runner

log = logging.getLogger(__name__)


class ThreadHost:
    """Runs the engine in a daemon thread."""

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

    async def stacks(self) -> str:
        """Intentional: nothing. No time limit is set for threads, which could not be ended."""
        return ""

    def kill(self) -> None:
        """Intentional: nothing. A thread cannot be ended from outside."""
