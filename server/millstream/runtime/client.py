"""The HTTP side of the engine: admission, streams, supervision.

Rules:
1. Admission is decided here, at once, from the number of open streams: never by waiting.
2. Every stream that was opened ends: by its own events, or because the engine died, or because
   the server shuts down. A dead engine fails everyone, readiness turns red, it is started again.
3. One event loop; no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import tempfile
import time
from enum import Enum
from pathlib import Path

import zmq
import zmq.asyncio

from millstream.core.info import EngineInfo
from millstream.core.request import FailureEvent, Request
from millstream.core.scheduler import Statistics
from millstream.errors import (
    ContextTooLong,
    EngineUnavailable,
    GenerationFailed,
    MillstreamError,
    Overloaded,
    ShuttingDown,
    StartupError,
)
from millstream.runtime.host import EngineHost
from millstream.runtime.messages import (
    Add,
    Cancel,
    Fatal,
    Ready,
    Step,
    Stop,
    ToEngine,
    decode_from_engine,
    encode,
)
from millstream.runtime.stream import TokenStream

log = logging.getLogger(__name__)

_MAX_RESTART_DELAY = 30.0
_STOP_TIMEOUT = 5.0


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "shutting_down"
    FAILED = "failed"


class EngineClient:
    """Opens streams on one supervised engine. Use from one event loop; `start()` first."""

    def __init__(
        self, host: EngineHost, *, max_running: int, max_waiting: int, engine_timeout: float
    ) -> None:
        self._host = host
        self._max_open = max_running + max_waiting
        self._engine_timeout = engine_timeout
        self._socket: zmq.asyncio.Socket | None = None
        self._streams: dict[int, TokenStream] = {}
        self._ids = itertools.count(1)
        self._info: EngineInfo | None = None
        self._failure: StartupError | None = None
        self._is_draining = False
        self._has_been_ready = False
        self._changed = asyncio.Event()
        self._last_news = time.monotonic()
        self._supervisor: asyncio.Task[None] | None = None
        self.statistics = Statistics()

    @property
    def state(self) -> State:
        if self._failure is not None:
            return State.FAILED
        if self._is_draining:
            return State.DRAINING
        if self._info is not None:
            return State.READY
        return State.RESTARTING if self._has_been_ready else State.LOADING

    @property
    def num_open(self) -> int:
        """Streams that hold a place, running or waiting."""
        return len(self._streams)

    @property
    def info(self) -> EngineInfo:
        """What the engine is. Raises EngineUnavailable or ShuttingDown when it is not ready."""
        self._check_available()
        assert self._info is not None
        return self._info

    def open(self) -> TokenStream:
        """Takes a place for one request, before anything is computed for it.

        Raises Overloaded when all running and waiting places are taken, EngineUnavailable while
        the engine loads or restarts, ShuttingDown while the server drains.
        """
        self._check_available()
        if len(self._streams) >= self._max_open:
            raise Overloaded("Model is overloaded: all running and waiting places are taken")
        if not self._streams:
            self._last_news = time.monotonic()
        stream = TokenStream(next(self._ids), send=self._add, forget=self._forget)
        self._streams[stream.id] = stream
        return stream

    def check_length(self, *, num_prompt: int) -> int:
        """Tokens that may be generated after a prompt of this many tokens, at least one.

        Raises ContextTooLong with the numbers when the prompt leaves no room.
        """
        limit = self.info.max_context
        if num_prompt >= limit:
            raise ContextTooLong(
                f"The prompt has {num_prompt} tokens, but this model's context holds {limit} "
                "tokens for prompt and answer together. Shorten the messages.",
                param="messages",
            )
        return limit - num_prompt

    async def start(self) -> None:
        """Starts the engine and returns; `wait_ready()` waits for it."""
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")

    async def wait_ready(self) -> EngineInfo:
        """Waits until the engine is loaded. Raises StartupError if it cannot be."""
        while self._info is None:
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()
        return self._info

    async def drain(self, *, grace: float) -> None:
        """Refuses new requests, lets open ones finish for `grace` seconds, then fails the rest."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._wait_no_streams(), timeout=grace)
        self.fail_all(ShuttingDown("the server is shutting down"))

    def fail_all(self, error: MillstreamError) -> None:
        """Ends every open stream with `error` and frees what it holds in the engine."""
        for stream in list(self._streams.values()):
            if stream.is_started and not stream.is_ended:
                self._post(Cancel(stream.id))
            stream.fail(error)

    async def stop(self) -> None:
        """Ends the engine. Open streams get ShuttingDown."""
        self._is_draining = True
        self.fail_all(ShuttingDown("the server is shutting down"))
        self._post(Stop())
        if self._supervisor is not None:
            if self._info is None:
                self._host.kill()  # while it loads, the engine reads no messages
            await asyncio.wait([self._supervisor], timeout=_STOP_TIMEOUT)
            self._host.kill()
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor

    def _check_available(self) -> None:
        if self._is_draining:
            raise ShuttingDown("the server is shutting down")
        if self._info is None:
            raise EngineUnavailable("the model is loading; try again in a moment")

    async def _wait_no_streams(self) -> None:
        while self._streams:
            self._changed.clear()
            await self._changed.wait()

    def _add(self, request: Request) -> None:
        self._check_available()
        self._post(Add(request))

    def _forget(self, stream: TokenStream) -> None:
        if self._streams.pop(stream.id, None) is None:
            return
        if stream.is_started and not stream.is_ended:
            self._post(Cancel(stream.id))
        self._changed.set()

    def _post(self, message: ToEngine) -> None:
        if self._socket is not None:
            # Sends at once; only an engine that has not connected yet makes it wait its turn.
            self._socket.send(encode(message))

    async def _supervise(self) -> None:
        delay = 0.0
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with tempfile.TemporaryDirectory(prefix="millstream-") as folder:
            for attempt in itertools.count():
                name = Path(folder, f"engine-{attempt}") if self._host.transport == "ipc" else ""
                endpoint = f"{self._host.transport}://{name or f'engine-{attempt}'}"
                how = await self._run_once(context, endpoint)
                if not self._has_been_ready and self._failure is None:
                    self._fail_start(f"the engine could not be started: {how}")
                if self._is_draining or self._failure is not None:
                    # Not reached when cancelled: a thread that is stuck still has its socket.
                    context.term()
                    return
                delay = 0.0 if self._info else min(2 * delay + 1.0, _MAX_RESTART_DELAY)
                self._mark_dead(how)
                await asyncio.sleep(delay)

    async def _run_once(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> str:
        """Runs one engine until it ends; returns how it ended."""
        shadow = zmq.asyncio.Context.shadow(context)
        self._socket = shadow.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.linger = 0
        self._socket.bind(endpoint)
        receiver = asyncio.create_task(self._receive(self._socket))
        watchdog = asyncio.create_task(self._watch_progress())
        try:
            await self._host.start(context, endpoint)
            how = await self._host.wait()
            # What it said last may still be on its way.
            await asyncio.wait([receiver], timeout=0.2)
            return how
        finally:
            for task in (receiver, watchdog):
                task.cancel()
            await asyncio.gather(receiver, watchdog, return_exceptions=True)
            self._host.kill()
            self._socket.close()
            self._socket = None

    async def _receive(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            message = decode_from_engine(await socket.recv())
            self._last_news = time.monotonic()
            if isinstance(message, Step):
                self._deliver(message)
            elif isinstance(message, Ready):
                self._info = message.info
                self._has_been_ready = True
                self._changed.set()
            elif isinstance(message, Fatal):
                self._fail_start(message.message)

    def _deliver(self, step: Step) -> None:
        self.statistics = step.statistics
        for event in step.tokens:
            stream = self._streams.get(event.request_id)
            if stream is not None:
                stream.push(event)
        for failure in step.failures:
            stream = self._streams.get(failure.request_id)
            if stream is not None:
                stream.fail(_error_of(failure))

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._engine_timeout / 4))
            is_waiting = any(s.is_started and not s.is_ended for s in self._streams.values())
            silence = time.monotonic() - self._last_news
            if is_waiting and self._info is not None and silence > self._engine_timeout:
                log.error("no step for %.0f s: the engine is stuck and will be restarted", silence)
                self._host.kill()

    def _mark_dead(self, how: str) -> None:
        log.error("%s; %d requests fail, restarting", how, len(self._streams))
        self._info = None
        self.statistics = Statistics()
        for stream in self._streams.values():
            stream.fail(EngineUnavailable("the engine ended unexpectedly", code="engine_dead"))

    def _fail_start(self, message: str) -> None:
        self._failure = StartupError(message)
        self._changed.set()


def _error_of(failure: FailureEvent) -> MillstreamError:
    if failure.code == ContextTooLong.code:
        return ContextTooLong(failure.message, param="messages")
    return GenerationFailed(failure.message, code=failure.code)
