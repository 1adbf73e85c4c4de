"""Worker threads whose work ends when nobody waits for it any more.

Theory of operation: Python cannot kill a thread, but it can raise an exception in one
(`PyThreadState_SetAsyncExc`), which arrives with the next bytecode. That ends a loop of Python
code, such as a chat template that never finishes; one call into a library runs to its end, so
callers bound what they pass to one. Few threads run at once: each that wants the interpreter delays
the event loop by one switch interval.

Rules: when a task that waits in `run()` is cancelled, it goes on at once; its work ends soon, and
only then is its thread free for others. Work must not hold locks of Python code while it can be
interrupted.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from millstream.errors import OutOfMemory

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_THREADS = 4


class Interrupted(BaseException):
    """Raised within work that nobody waits for. Not an Exception: nobody takes it for a failure."""


class WorkerThreads:
    """A few threads for the work of one event loop. `stop()` when done."""

    def __init__(self, *, max_threads: int = _MAX_THREADS) -> None:
        self.num_threads = max_threads
        self._executor = ThreadPoolExecutor(max_threads, thread_name_prefix="millstream-worker")
        self._running: set[_Interruptible[Any]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; OutOfMemory if memory runs out in it. Cancelled,
        interrupts it, or takes it from the queue."""
        interruptible = _Interruptible(work)
        self._running.add(interruptible)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, interruptible.run
            )
        except MemoryError as error:
            log.error("memory ran out while a request was prepared")
            raise OutOfMemory("the server has no memory left to prepare this request") from error
        except asyncio.CancelledError:
            interruptible.interrupt()
            raise
        finally:
            self._running.discard(interruptible)

    def stop(self) -> None:
        """Interrupts everything and takes no more; idempotent. Does not wait."""
        for interruptible in list(self._running):
            interruptible.interrupt()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Waits until no thread is left; after `stop()`."""
        self._executor.shutdown()


class _Interruptible(Generic[T]):
    """One piece of work. `interrupt()` may come before, while or after it runs."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_interrupted = False

    def run(self) -> T:
        """In the worker thread, once. Raises Interrupted if it was interrupted."""
        self._begin()
        try:
            return self._work()
        finally:
            self._end()

    def interrupt(self) -> None:
        """From another thread; idempotent."""
        with self._lock:
            if not self._is_interrupted and self._thread is not None:
                _set_exception(self._thread, Interrupted)
            self._is_interrupted = True

    def _begin(self) -> None:
        with self._lock:
            if self._is_interrupted:
                raise Interrupted
            self._thread = threading.get_ident()

    def _end(self) -> None:
        with self._lock:
            self._thread = None
            if self._is_interrupted:
                # One that has not arrived yet would hit whatever this thread does next.
                _set_exception(threading.get_ident(), None)


def _set_exception(thread: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if exception is None else ctypes.py_object(exception)
    )
