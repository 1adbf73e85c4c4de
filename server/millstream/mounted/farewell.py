"""The orderly end: open answers get their grace when the process is told to end, not after it.

Web servers end their applications' lifespans only once all connections are closed; an answer that
takes long would hold them up for ever, or be cut without a word. So the signals that they listen
to are listened to here as well.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from millstream.runtime.client import EngineClient

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Farewell:
    """Drains an engine at the first signal, or at the end of its block if none came.

    A second signal ends the wait. What listened to the signals before still hears them.
    """

    def __init__(self, engine: EngineClient, *, grace: float) -> None:
        """grace: seconds that open answers get."""
        self._engine = engine
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None
        self._ears: list[_Ear] = []

    async def __aenter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._ears = [_Ear(number, self._hear) for number in _SIGNALS]
        return self

    async def __aexit__(self, *error: object) -> None:
        for ear in self._ears:
            ear.close()
        if self._draining is None:
            self._draining = self._drain(self._grace)
        await self._draining

    def _hear(self) -> None:
        """Runs in a signal handler."""
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        is_first = self._draining is None
        if self._draining is not None:
            self._draining.cancel()
        self._draining = self._drain(self._grace if is_first else 0)

    def _drain(self, grace: float) -> asyncio.Task[None]:
        return asyncio.create_task(self._engine.drain(grace=grace))


class _Ear:
    """Listens to a signal before the handler that is there, if that is one of Python."""

    def __init__(self, number: signal.Signals, hear: Callable[[], None]) -> None:
        self._number = number
        self._hear = hear
        self._before: Any = signal.getsignal(number)
        if callable(self._before):
            signal.signal(number, self.handle)

    @property
    def should_exit(self) -> bool:
        """What libraries look for on the object whose method is the handler, uvicorn's server."""
        return bool(getattr(getattr(self._before, "__self__", None), "should_exit", False))

    def handle(self, number: int, frame: FrameType | None) -> None:
        self._hear()
        self._before(number, frame)

    def close(self) -> None:
        """Puts the handler back, unless somebody else has taken the place."""
        if signal.getsignal(self._number) == self.handle:
            signal.signal(self._number, self._before)
