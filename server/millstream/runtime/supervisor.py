"""Keeps one engine running: starts it, reads what it says, notices its end, starts it again.

Rules: if no engine ever became ready, none is tried again; else the next one is, as `restarts.py`
says.
A step that takes longer than the time limit counts as an end, and so does an engine that cannot be
started or understood. Each engine gets a fresh socket. Should the supervisor itself fail, its
listener hears of a final end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time

import zmq
import zmq.asyncio

from millstream.runtime.engine_link import Listener
from millstream.runtime.host import EngineHost
from millstream.runtime.messages import (
    Ended,
    Fatal,
    Ready,
    Stop,
    ToEngine,
    decode_from_engine,
    encode,
)
from millstream.runtime.restarts import Restarts

log = logging.getLogger(__name__)

_STOP_TIMEOUT = 5.0

Context = zmq.Context[zmq.Socket[bytes]]


class Supervisor:
    """Runs engines of one host, one after the other. Use from one event loop."""

    def __init__(
        self, host: EngineHost, *, engine_timeout: float, max_restarts: int | None = None
    ) -> None:
        """engine_timeout: seconds without a step after which the engine is restarted.
        max_restarts: in a row; None for any number."""
        self._host = host
        self._listener: Listener | None = None
        self._engine_timeout = engine_timeout
        self._socket: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_news = time.monotonic()
        self._ready_since: float | None = None
        self._restarts = Restarts(max_restarts)
        self._is_last = asyncio.Event()

    @property
    def silence(self) -> float | None:
        """Seconds since the engine said something, or somebody began to wait; None if nobody
        waits."""
        is_waiting = self._listener is not None and self._listener.is_waiting
        return self._seconds_since_news if is_waiting else None

    @property
    def _seconds_since_news(self) -> float:
        return time.monotonic() - self._last_news

    def start(self, listener: Listener) -> None:
        """Starts the engine, and returns at once."""
        self._listener = listener
        self._task = asyncio.create_task(self._run(listener), name="engine-supervisor")

    def post(self, message: ToEngine) -> None:
        """Sends to the engine; without one, nothing: whoever waits has been or will be told."""
        if self._socket is not None:
            # Sends at once; only an engine that has not connected yet makes it wait its turn.
            self._socket.send(encode(message))

    def expect_news(self) -> None:
        """Starts the clock of `engine_timeout` anew: somebody begins to wait."""
        self._last_news = time.monotonic()

    def start_no_more(self) -> None:
        """Makes this engine the last one: whenever it ends, no other is started."""
        self._is_last.set()

    async def stop(self) -> None:
        """Ends the engine and waits for it."""
        self.start_no_more()
        if self._task is None:
            return
        self.post(Stop())
        if self._ready_since is None:
            self._host.kill()  # while it loads, the engine reads no messages
        await asyncio.wait([self._task], timeout=_STOP_TIMEOUT)
        self._host.kill()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, listener: Listener) -> None:
        try:
            await self._run_engines(listener)
        except Exception as error:
            log.debug("the engine's supervisor failed", exc_info=True)
            listener.on_end(f"its supervisor failed: {_in_words(error)}", is_final=True)

    async def _run_engines(self, listener: Listener) -> None:
        has_been_ready = False
        context: Context = zmq.Context()
        while not self._is_last.is_set():
            how = await self._run_once(context, listener)
            began, self._ready_since = self._ready_since, None
            has_been_ready |= began is not None
            delay = self._restarts.delay(0.0 if began is None else time.monotonic() - began)
            is_final = self._is_last.is_set() or not has_been_ready or delay is None
            if has_been_ready and delay is None:
                how = f"{how}; {self._restarts.num_ends} engines in a row have ended soon"
            if not is_final:
                log.error("%s; it is started again", how)
            listener.on_end(how, is_final=is_final)
            if is_final:
                break
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._is_last.wait(), timeout=delay)
        # Not reached when cancelled: a thread that is stuck still has its socket.
        context.term()

    async def _run_once(self, context: Context, listener: Listener) -> str:
        """Runs one engine until it ends; returns how it ended."""
        with contextlib.ExitStack() as stack:
            try:
                socket = zmq.asyncio.Context.shadow(context).socket(zmq.PAIR)
                stack.callback(socket.close, linger=0)
                socket.set_hwm(0)
                if sys.platform == "linux":  # a name of the kernel's has no permissions
                    socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
                endpoint = self._host.endpoint()
                socket.bind(endpoint)
                stack.callback(self._host.kill)
                await self._host.start(context, endpoint)
            except (OSError, RuntimeError, zmq.ZMQError) as error:
                # Descriptors, memory, processes or threads are short; they may be had again later.
                return f"no engine could be started ({_in_words(error)})"
            return await self._follow(socket, listener)

    async def _follow(self, socket: zmq.asyncio.Socket, listener: Listener) -> str:
        """Watches a started engine until it ends; returns how it ended."""
        self._socket = socket
        ending = asyncio.create_task(self._host.wait())
        receiving = asyncio.create_task(self._receive(socket, listener))
        watching = asyncio.create_task(self._watch_progress(listener))
        tasks = [ending, receiving, watching]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if done == {receiving} and receiving.exception() is None:  # it has said its last
                done, _ = await asyncio.wait(
                    [ending, watching], return_when=asyncio.FIRST_COMPLETED
                )
            if ending not in done:
                error = done.pop().exception()
                log.error("nobody can follow the engine, so it is ended", exc_info=error)
                self.post(Stop())
                self._host.kill()
                await asyncio.wait_for(ending, timeout=_STOP_TIMEOUT)
            # What it said last may still be on its way, if it did not say that it was the last.
            await asyncio.wait([receiving], timeout=0.2)
            return ending.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._socket = None

    async def _receive(self, socket: zmq.asyncio.Socket, listener: Listener) -> None:
        """Returns when the engine has said its last."""
        while not isinstance(message := decode_from_engine(await socket.recv()), Ended):
            self._last_news = time.monotonic()
            if isinstance(message, Ready):
                self._ready_since = self._last_news
            elif isinstance(message, Fatal):
                log.error("the engine cannot start: %s", message.message)
            listener.on_message(message)

    async def _watch_progress(self, listener: Listener) -> None:
        pause, looked = min(1.0, self._engine_timeout / 4), time.monotonic()
        while True:
            await asyncio.sleep(pause)
            before, looked = looked, time.monotonic()
            if looked - before > self._engine_timeout / 2:
                # This process was stopped, and most likely the engine too (a container that is
                # paused, a machine that sleeps): what it says next has not been read yet.
                self.expect_news()
            silence = self._seconds_since_news
            is_ready = self._ready_since is not None
            if silence > self._engine_timeout and is_ready and listener.is_waiting:
                where = await self._host.stacks() or "it does not say where"
                log.error("no step for %.0f s: the engine is stuck; it ends\n%s", silence, where)
                self._host.kill()
                await asyncio.Event().wait()  # its end cancels this


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
