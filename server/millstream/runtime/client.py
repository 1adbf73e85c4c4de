"""The HTTP side of the engine: admission and streams.

Rules:
1. Admission is decided here, at once, from the number of open streams: never by waiting.
2. Every stream that was opened ends: by its own events, or because the engine died, or because
   the server shuts down. A dead engine fails everyone; readiness is red until the next one is up.
3. One event loop; no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Collection
from enum import Enum

from millstream.core.request import Request
from millstream.core.status import EngineInfo, Statistics
from millstream.errors import (
    ContextTooLong,
    EngineUnavailable,
    MillstreamError,
    Overloaded,
    RequestCancelled,
    ShuttingDown,
    StartupError,
)
from millstream.runtime.host import EngineHost
from millstream.runtime.messages import Add, Cancel, Fatal, FromEngine, Ready, Step, error_of
from millstream.runtime.stream import TokenStream
from millstream.runtime.supervisor import Supervisor
from millstream.runtime.waiting import WaitingPrompts

log = logging.getLogger(__name__)


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "shutting_down"
    FAILED = "failed"


class EngineClient:
    """Opens streams on one supervised engine. Use from one event loop; `start()` first."""

    def __init__(
        self,
        host: EngineHost,
        *,
        max_running: int,
        max_waiting: int,
        max_waiting_tokens: int | None = None,
        engine_timeout: float,
    ) -> None:
        self._supervisor = Supervisor(host, self, engine_timeout=engine_timeout)
        self.max_open = max_running + max_waiting
        self._waiting = WaitingPrompts(limit=max_waiting_tokens)
        self._streams: dict[int, TokenStream] = {}
        self._ids = itertools.count(1)
        self._info: EngineInfo | None = None
        self._failure: StartupError | None = None
        self._is_draining = False
        self._has_been_ready = False
        self._changed = asyncio.Event()
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
        return self._check_available()

    def open(self) -> TokenStream:
        """Takes a place for one request, before anything is computed for it.

        Raises Overloaded when all running and waiting places are taken, EngineUnavailable while
        the engine loads or restarts, ShuttingDown while the server drains.
        """
        return self.open_many(1)[0]

    def open_many(self, count: int, *, names: Collection[str] = ()) -> list[TokenStream]:
        """Like `open()`, for `count` places at once or none. At most `max_open` can be had.

        names: what `cancel()` may call them, all of them alike, for as long as they are open.
        """
        self._check_available()
        if len(self._streams) + count > self.max_open:
            raise Overloaded("Model is overloaded: all running and waiting places are taken")
        if not self._streams:
            self._supervisor.expect_news()
        streams = [
            TokenStream(next(self._ids), send=self._add, forget=self._forget, names=names)
            for _ in range(count)
        ]
        self._streams |= {stream.id: stream for stream in streams}
        return streams

    def cancel(self, name: str) -> bool:
        """Ends the open streams of this name with RequestCancelled; their places are free at once.

        False if there is none that has not ended.
        """
        found = [s for s in self._streams.values() if name in s.names and not s.is_ended]
        for stream in found:
            self._forget(stream)
            stream.fail(RequestCancelled("the request was cancelled"))
        return bool(found)

    def check_length(self, *, num_prompt: int, param: str = "messages") -> int:
        """Tokens that may be generated after a prompt of this many tokens, at least one.

        Raises ContextTooLong with the numbers when the prompt leaves no room. param: the field
        that has the prompt.
        """
        limit = self.info.max_context
        if num_prompt >= limit:
            raise ContextTooLong(
                f"The prompt has {num_prompt} tokens, but this model's context holds {limit} "
                f"tokens for prompt and answer together. Shorten the {param}.",
                param=param,
            )
        return limit - num_prompt

    def start(self) -> None:
        """Starts the engine and returns; `wait_ready()` waits for it."""
        self._supervisor.start()

    async def wait_ready(self) -> EngineInfo:
        """Waits until the engine is loaded. Raises StartupError if it cannot be."""
        while self._info is None:
            if self._failure is not None:
                raise self._failure
            await self._wait_change()
        return self._info

    async def drain(self, *, grace: float) -> None:
        """Refuses new requests, lets open ones finish for `grace` seconds, then fails the rest."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._wait_no_streams(), timeout=grace)
        self._fail_all(ShuttingDown("the server is shutting down"))

    async def stop(self) -> None:
        """Ends the engine. Open streams get ShuttingDown."""
        self._is_draining = True
        self._fail_all(ShuttingDown("the server is shutting down"))
        await self._supervisor.stop()

    @property
    def is_waiting(self) -> bool:
        """For the supervisor: whether a request is in the engine."""
        return any(s.is_started and not s.is_ended for s in self._streams.values())

    def on_message(self, message: FromEngine) -> None:
        """For the supervisor: the engine has said something."""
        if isinstance(message, Step):
            self._deliver(message)
        elif isinstance(message, Ready):
            self._info = message.info
            self._has_been_ready = True
            self._changed.set()
        elif isinstance(message, Fatal):
            log.error("the engine cannot start: %s", message.message)
            if not self._has_been_ready:
                self._failure = StartupError(message.message)

    def on_end(self, how: str, *, is_final: bool) -> None:
        """For the supervisor: the engine is gone."""
        self._info = None
        self.statistics = Statistics()
        if self._is_draining:
            return
        if is_final:
            # The engine itself may have said why.
            self._failure = self._failure or StartupError(f"the engine could not start: {how}")
        else:
            log.error("%s; %d requests fail, restarting", how, len(self._streams))
        self._fail_all(EngineUnavailable("the engine ended unexpectedly", code="engine_dead"))
        self._changed.set()

    def _check_available(self) -> EngineInfo:
        if self._is_draining:
            raise ShuttingDown("the server is shutting down")
        if self._info is None:
            raise EngineUnavailable("the model is loading; try again in a moment")
        return self._info

    def _fail_all(self, error: MillstreamError) -> None:
        for stream in list(self._streams.values()):
            if stream.is_started and not stream.is_ended:
                self._supervisor.post(Cancel(stream.id))
            self._waiting.remove(stream.id)
            stream.fail(error)

    async def _wait_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _wait_no_streams(self) -> None:
        while self._streams:
            await self._wait_change()

    def _add(self, request: Request) -> None:
        self._check_available()
        self._waiting.add(request)
        self._supervisor.post(Add(request))

    def _forget(self, stream: TokenStream) -> None:
        if self._streams.pop(stream.id, None) is None:
            return
        self._waiting.remove(stream.id)
        if stream.is_started and not stream.is_ended:
            self._supervisor.post(Cancel(stream.id))
        self._changed.set()

    def _deliver(self, step: Step) -> None:
        self.statistics = step.statistics
        for event in step.tokens:
            self._waiting.remove(event.request_id)
            stream = self._streams.get(event.request_id)
            if stream is not None:
                stream.push(event)
        for failure in step.failures:
            self._waiting.remove(failure.request_id)
            stream = self._streams.get(failure.request_id)
            if stream is not None:
                stream.fail(error_of(failure))
