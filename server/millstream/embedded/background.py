"""An event loop in a thread of its own, so that it does not matter what loops the caller runs.

Rules: whoever waits for something submitted here gets its result, its error, or ShuttingDown when
`close()` came first; nobody waits for ever. Everything is callable from any thread, also from a
finaliser that runs in the background thread itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

import uvloop

from millstream.errors import ShuttingDown

T = TypeVar("T")
P = ParamSpec("P")


class Background:
    """Runs coroutines until closed."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._lock = threading.RLock()
        self._is_closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="millstream", daemon=True)
        self._thread.start()

    def submit(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]:
        """Runs the coroutine function; cancelling the future cancels it. Raises ShuttingDown."""
        with self._lock:
            if self._is_closed:
                raise ShuttingDown("the engine is closed")
            coroutine = self._track(lambda: function(*args, **kwargs))
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Calls it on the loop after what was submitted before; not at all once closed.

        Intentional: no lock, because finalisers call this, and they run anywhere.
        """
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def close(self, farewell: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ends what runs, then runs `farewell`, then ends the thread. Idempotent."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                asyncio.run_coroutine_threadsafe(self._end(farewell), self._loop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _track(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.current_task()
        assert task is not None, "run by the loop"
        self._tasks.add(task)
        try:
            return await begin()
        except asyncio.CancelledError:
            if self._is_closed:
                raise ShuttingDown("the engine was closed") from None
            raise
        finally:
            self._tasks.discard(task)

    async def _end(self, farewell: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await farewell()
        finally:
            self._loop.call_soon(self._loop.stop)
