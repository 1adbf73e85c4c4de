"""Requests that wait until what they need is compiled, while steps go on.

Rules:
1. The loop hears of a request when it can run without compiling anything. Others overtake it.
2. Compiling is done in one thread, in order of arrival. A request whose compiling fails is
   delivered all the same: it fails alone when it runs.
3. A request that is cancelled while it waits is never delivered.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from millstream.core.request import Request
from millstream.errors import is_library_failure
from millstream.runtime.messages import Add, Cancel, FromEngine, Step, ToEngine
from millstream.runtime.runner_protocol import Runner

log = logging.getLogger(__name__)

# The check of a grammar has passed with 2 MiB (workers/grammar_child.py).
_STACK_BYTES = 16 * 1024**2

Submit = Callable[[Callable[[], None]], None]


class WakeableChannel(Protocol):
    """A channel whose reader another thread can wake."""

    def receive(self) -> ToEngine | None:
        """Waits for the next message; None after `wake()`."""
        ...

    def receive_nowait(self) -> ToEngine | None: ...

    def send(self, message: FromEngine) -> None: ...

    def wake(self) -> None:
        """From any thread: lets `receive()` return."""
        ...


class CompilingChannel:
    """The engine loop's channel over another, from which requests come when they are compiled."""

    def __init__(self, channel: WakeableChannel, runner: Runner, *, submit: Submit) -> None:
        """submit: has something done in another thread, one after the other."""
        self._channel = channel
        self._runner = runner
        self._submit = submit
        self._waiting: dict[int, Request] = {}
        self._compiled: deque[int] = deque()  # appended to by the other thread
        self._seconds: deque[float] = deque()  # and this one; not told yet

    def receive(self) -> ToEngine:
        """Waits for the next message."""
        while (message := self.receive_nowait()) is None:
            received = self._channel.receive()
            if received is not None and (delivered := self._deliver(received)) is not None:
                return delivered
        return message

    def receive_nowait(self) -> ToEngine | None:
        """The next message if one is there."""
        while self._compiled:
            request = self._waiting.pop(self._compiled.popleft(), None)
            if request is not None:
                return Add(request)
        while (received := self._channel.receive_nowait()) is not None:
            if (delivered := self._deliver(received)) is not None:
                return delivered
        return None

    def send(self, message: FromEngine) -> None:
        """Sends to the client; tells it in passing what was compiled."""
        if isinstance(message, Step):
            if self._seconds:
                seconds = [self._seconds.popleft() for _ in range(len(self._seconds))]
                message = msgspec.structs.replace(message, compilations=seconds)
            if (count := self._runner.num_late_kernels) is not None:
                statistics = dataclasses.replace(message.statistics, num_late_kernels=count)
                message = msgspec.structs.replace(message, statistics=statistics)
        self._channel.send(message)

    def _deliver(self, message: ToEngine) -> ToEngine | None:
        """The message, if the loop is to have it now."""
        if isinstance(message, Add) and not self._runner.is_compiled(message.request):
            request = message.request
            self._waiting[request.id] = request
            self._submit(lambda: self._compile(request))
            return None
        if isinstance(message, Cancel) and self._waiting.pop(message.request_id, None) is not None:
            return None
        return message

    def _compile(self, request: Request) -> None:
        """In the other thread."""
        try:
            if request.id in self._waiting:
                began = time.monotonic()
                self._runner.compile(request)
                self._seconds.append(time.monotonic() - began)
        except BaseException as error:
            if not is_library_failure(error):
                raise
            log.exception("request %d cannot be compiled", request.id)
        self._compiled.append(request.id)
        self._channel.wake()


class CompilingThread:
    """One daemon thread that does what it is told, begun with the first of it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Has this done, after all that came before. `job` does not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="compiling", daemon=True)
            usual = threading.stack_size(_STACK_BYTES)
            self._thread.start()
            threading.stack_size(usual)
        self._jobs.put(job)

    def _run(self) -> None:
        while True:
            self._jobs.get()()
