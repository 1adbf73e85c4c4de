"""The HTTP side of the engine: whether it takes requests, and the streams of those it took.

Rules:
1. Every stream that was opened ends: by its own events, or because the engine died, or because
   the server shuts down. A dead engine fails everyone; readiness is red until the next one is up.
2. One event loop; no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Collection, Iterator

from millstream.core.status import EngineInfo, Statistics
from millstream.errors import EngineUnavailable, ShuttingDown, StartupError
from millstream.runtime.admission import Admission
from millstream.runtime.engine_history import EngineHistory
from millstream.runtime.engine_link import EngineLink
from millstream.runtime.engine_status import EngineStatus, LocalStatus
from millstream.runtime.length_limits import LengthLimits
from millstream.runtime.messages import Fatal, FromEngine, Loading, Ready, Step
from millstream.runtime.open_streams import OpenStreams
from millstream.runtime.readiness import Readiness
from millstream.runtime.state import State
from millstream.runtime.stream import TokenStream

log = logging.getLogger(__name__)


class EngineClient:
    """Opens streams on one supervised engine. Use from one event loop; `start()` first.

    streams: those that are open.
    """

    def __init__(
        self,
        link: EngineLink,
        admission: Admission,
        *,
        status: EngineStatus | None = None,
        ids: Iterator[int] | None = None,
        max_answer_tokens: int | None = None,
        max_prompt_tokens: int | None = None,
        stuck_seconds: float,
    ) -> None:
        """status: what hears and shows how the engine stands. ids: of requests, on that engine.
        stuck_seconds: without a step, after which the engine is called stuck."""
        self._link = link
        self._admission = admission
        self._status = status or LocalStatus()
        self._stuck_seconds = stuck_seconds
        self._readiness = Readiness()
        self.streams = OpenStreams(
            admission,
            ids=ids or itertools.count(1),
            check_available=self._readiness.check,
            post=link.post,
            on_close=self._readiness.note_change,
        )
        self._lengths = LengthLimits(max_answer_tokens, max_prompt_tokens)

    @property
    def state(self) -> State:
        return self._readiness.state(is_stuck=(self.silence or 0.0) > self._stuck_seconds)

    @property
    def progress(self) -> Loading | None:
        """How far the start is; None unless an engine is being started."""
        return self._readiness.progress

    @property
    def silence(self) -> float | None:
        """Seconds in which requests were in the engine and no step came; None if there are none."""
        return None if self._readiness.info is None else self._link.silence

    @property
    def statistics(self) -> Statistics:
        """What the engine said last of its work."""
        return self._status.statistics

    @property
    def history(self) -> EngineHistory:
        """What was counted by engines before this one."""
        return self._status.history

    @property
    def max_open(self) -> int:
        """Places in all, running and waiting."""
        return self._admission.limit

    @property
    def max_waiting_tokens(self) -> int | None:
        """Prompt tokens that may wait for their first answer token, if there is a limit."""
        return self._admission.max_waiting_tokens

    @property
    def num_waiting_tokens(self) -> int:
        """Prompt tokens that wait for their first answer token."""
        return self._admission.num_waiting_tokens

    @property
    def num_open(self) -> int:
        """Streams that hold a place, running or waiting."""
        return self._admission.num_taken

    @property
    def num_generated_tokens(self) -> int:
        """Tokens of answers that were passed on so far."""
        return self.streams.metrics.num_generated_tokens

    @property
    def info(self) -> EngineInfo:
        """What the engine is. Raises EngineUnavailable or ShuttingDown when it is not ready."""
        return self._readiness.check()

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens of the longest prompt; one at least is left for the answer."""
        return self._lengths.longest_prompt(self.info.max_context)

    def open(self) -> TokenStream:
        """Takes a place for one request, before anything is computed for it.

        Raises Overloaded when all running and waiting places are taken, EngineUnavailable while
        the engine loads or restarts, ShuttingDown while the server drains.
        """
        return self.open_many(1)[0]

    def open_many(self, count: int, *, names: Collection[str] = ()) -> list[TokenStream]:
        """Takes `count` places at once or none, and raises as `open()` does. At most `max_open` can
        be had.

        names: what `cancel()` may call them, all of them alike, for as long as they are open.
        """
        self._readiness.check()
        was_idle = not self.streams
        streams = self.streams.open_many(count, names=names)
        if was_idle:
            self._link.expect_news()
        return streams

    def cancel(self, name: str) -> bool:
        """Ends the open streams of this name with RequestCancelled; their places are free at once.

        False if there is none that has not ended.
        """
        return self.streams.cancel(name)

    def check_length(self, *, num_prompt: int, param: str = "messages") -> int:
        """Tokens that may be generated after a prompt of this many tokens, at least one.

        Raises ContextTooLong with the numbers when the prompt leaves no room. param: the field
        that has the prompt.
        """
        return self._lengths.check(
            num_prompt=num_prompt, max_context=self.info.max_context, param=param
        )

    def start(self) -> None:
        """Starts the engine and returns; `wait_ready()` waits for it."""
        self._readiness.on_start()
        self._link.start(self)

    async def wait_ready(self) -> EngineInfo:
        """Waits until the engine is loaded. Raises StartupError if it cannot be."""
        return await self._readiness.wait_ready()

    async def wait_failed(self) -> StartupError:
        """Waits until there is no engine and will be none; returns why."""
        return await self._readiness.wait_failed()

    async def drain(self, *, grace: float) -> None:
        """Refuses new requests, lets open ones finish for `grace` seconds, then fails the rest."""
        self._readiness.is_draining = True
        self._link.start_no_more()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.streams:
                    await self._readiness.wait_change()
        self.streams.fail_all(ShuttingDown("the server is shutting down"))

    async def stop(self) -> None:
        """Ends the engine. Open streams get ShuttingDown."""
        self._readiness.is_draining = True
        self.streams.fail_all(ShuttingDown("the server is shutting down"))
        await self._link.stop()

    @property
    def is_waiting(self) -> bool:
        """For the link: whether a request is in the engine."""
        return self.streams.is_any_in_engine

    def on_message(self, message: FromEngine) -> None:
        """For the link: the engine has said something."""
        if isinstance(message, Step):
            self._status.on_step(message.statistics)
            self.streams.deliver(message)
        elif isinstance(message, Loading | Ready | Fatal):
            self._readiness.on_message(message)

    def on_end(self, how: str, *, is_final: bool) -> None:
        """For the link: the engine is gone."""
        is_replaced = self._readiness.on_end(how, is_final=is_final)
        self._status.on_end(is_replaced=is_replaced)
        if self.streams:
            log.error("%s; %d requests fail", how, len(self.streams))
        self.streams.fail_all(
            EngineUnavailable("the engine ended unexpectedly", code="engine_dead")
        )
