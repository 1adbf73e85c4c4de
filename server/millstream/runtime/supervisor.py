"""Keeps one engine running: starts it, reads what it says, notices its end, starts it again.

Rules: an engine that never became ready is not tried again; one that was is, with growing pauses.
A step that takes longer than the time limit counts as an end. Each engine gets a fresh socket.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
import time
from pathlib import Path
from typing import Protocol

import zmq
import zmq.asyncio

from millstream.runtime.host import EngineHost
from millstream.runtime.messages import (
    FromEngine,
    Ready,
    Stop,
    ToEngine,
    decode_from_engine,
    encode,
)

log = logging.getLogger(__name__)

_MAX_RESTART_DELAY = 30.0
_STOP_TIMEOUT = 5.0

Context = zmq.Context[zmq.Socket[bytes]]


class Listener(Protocol):
    """Who hears what becomes of the engine. Called on the event loop; must not block."""

    @property
    def is_waiting(self) -> bool:
        """Whether anybody waits for the engine to compute something."""
        ...

    def on_message(self, message: FromEngine) -> None: ...

    def on_end(self, how: str, *, is_final: bool) -> None:
        """The engine is gone; unless `is_final`, another one is being started."""
        ...


class Supervisor:
    """Runs engines of one host, one after the other. Use from one event loop."""

    def __init__(self, host: EngineHost, listener: Listener, *, engine_timeout: float) -> None:
        self._host = host
        self._listener = listener
        self._engine_timeout = engine_timeout
        self._socket: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_news = time.monotonic()
        self._is_ready = False
        self._is_stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="engine-supervisor")

    def post(self, message: ToEngine) -> None:
        """Sends to the engine; without one, nothing: whoever waits has been or will be told."""
        if self._socket is not None:
            # Sends at once; only an engine that has not connected yet makes it wait its turn.
            self._socket.send(encode(message))

    def expect_news(self) -> None:
        """Starts the clock of `engine_timeout` anew: somebody begins to wait."""
        self._last_news = time.monotonic()

    async def stop(self) -> None:
        """Ends the engine and waits for it."""
        self._is_stopping = True
        if self._task is None:
            return
        self.post(Stop())
        if not self._is_ready:
            self._host.kill()  # while it loads, the engine reads no messages
        await asyncio.wait([self._task], timeout=_STOP_TIMEOUT)
        self._host.kill()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        delay = 0.0
        has_been_ready = False
        context: Context = zmq.Context()
        with tempfile.TemporaryDirectory(prefix="millstream-") as folder:
            for attempt in itertools.count():
                name = f"engine-{attempt}"
                place = str(Path(folder, name)) if self._host.transport == "ipc" else name
                how = await self._run_once(context, f"{self._host.transport}://{place}")
                has_been_ready |= self._is_ready
                delay = 0.0 if self._is_ready else min(2 * delay + 1.0, _MAX_RESTART_DELAY)
                self._is_ready = False
                is_final = self._is_stopping or not has_been_ready
                self._listener.on_end(how, is_final=is_final)
                if is_final:
                    # Not reached when cancelled: a thread that is stuck still has its socket.
                    context.term()
                    return
                await asyncio.sleep(delay)

    async def _run_once(self, context: Context, endpoint: str) -> str:
        """Runs one engine until it ends; returns how it ended."""
        socket = zmq.asyncio.Context.shadow(context).socket(zmq.PAIR)
        socket.set_hwm(0)
        socket.linger = 0
        socket.bind(endpoint)
        self._socket = socket
        tasks = [
            asyncio.create_task(self._receive(socket)),
            asyncio.create_task(self._watch_progress()),
        ]
        try:
            await self._host.start(context, endpoint)
            how = await self._host.wait()
            # What it said last may still be on its way.
            await asyncio.wait(tasks[:1], timeout=0.2)
            return how
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._host.kill()
            self._socket = None
            socket.close()

    async def _receive(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            message = decode_from_engine(await socket.recv())
            self._last_news = time.monotonic()
            self._is_ready |= isinstance(message, Ready)
            self._listener.on_message(message)

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._engine_timeout / 4))
            silence = time.monotonic() - self._last_news
            is_late = silence > self._engine_timeout
            if is_late and self._is_ready and self._listener.is_waiting:
                log.error("no step for %.0f s: the engine is stuck and will be restarted", silence)
                self._host.kill()
