"""Whether the engine takes requests, and if it does not, why: what it said of its start and end."""

from __future__ import annotations

import asyncio
import logging

from millstream.core.status import EngineInfo
from millstream.errors import EngineLost, EngineUnavailable, ShuttingDown, StartupError
from millstream.runtime.messages import Fatal, Loading, Ready
from millstream.runtime.state import State

log = logging.getLogger(__name__)

_BEGINNING = Loading("starting the engine")


class Readiness:
    """What is known of one engine after the other. For one event loop.

    info: what the engine is; None unless it is ready. failure: why there is none and will be none.
    progress: how far the start is; None unless an engine is being started. is_draining: nothing new
    is taken, and no other engine is made.
    """

    def __init__(self) -> None:
        self.info: EngineInfo | None = None
        self.failure: StartupError | None = None
        self.progress: Loading | None = None
        self.is_draining = False
        self._has_been_ready = False
        self._changed = asyncio.Event()

    def state(self, *, is_stuck: bool) -> State:
        """is_stuck: whether an engine that is ready does not go on."""
        if self.failure is not None:
            return State.FAILED
        if self.is_draining:
            return State.DRAINING
        if self.info is not None:
            return State.STUCK if is_stuck else State.READY
        return State.RESTARTING if self._has_been_ready else State.LOADING

    def check(self) -> EngineInfo:
        """What the engine is. Raises EngineUnavailable or ShuttingDown when it takes nothing."""
        if self.is_draining:
            raise ShuttingDown("the server is shutting down")
        if self.failure is not None:
            raise EngineUnavailable("the engine has failed", code="engine_dead")
        if self.info is None:
            raise EngineUnavailable("the model is loading; try again in a moment")
        return self.info

    def on_start(self) -> None:
        """An engine is being started."""
        self.progress = _BEGINNING

    def on_message(self, message: Loading | Ready | Fatal) -> None:
        """The engine has said something of its start."""
        if isinstance(message, Ready):
            self.info, self.progress = message.info, None
            self._has_been_ready = True
            self.note_change()
        elif isinstance(message, Loading):
            self.progress = message
        elif not self._has_been_ready:
            self.failure = StartupError(message.message)

    def on_end(self, how: str, *, is_final: bool) -> bool:
        """The engine has ended; unless `is_final`, another one is being started. Returns whether
        that takes the place of one that was ready."""
        was_ready, self.info = self.info is not None, None
        self.progress = None if is_final else _BEGINNING
        if is_final and not self.is_draining:
            kind, what = StartupError, "could not start"
            if self._has_been_ready:
                kind, what = EngineLost, "cannot go on"
            # The engine itself may have said why.
            self.failure = self.failure or kind(f"the engine {what}: {how}")
        self.note_change()
        return was_ready and not is_final

    async def wait_ready(self) -> EngineInfo:
        """Waits until the engine is loaded. Raises StartupError if it cannot be."""
        while self.info is None:
            if self.failure is not None:
                raise self.failure
            await self.wait_change()
        return self.info

    async def wait_failed(self) -> StartupError:
        """Waits until there is no engine and will be none; returns why."""
        while self.failure is None:
            await self.wait_change()
        return self.failure

    def note_change(self) -> None:
        """Wakes who waits in `wait_change()`."""
        self._changed.set()

    async def wait_change(self) -> None:
        """Waits until the engine is ready or has ended, or somebody has noted a change."""
        self._changed.clear()
        await self._changed.wait()
