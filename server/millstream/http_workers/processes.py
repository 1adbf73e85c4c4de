"""The processes of the HTTP workers: started, listened to, and started again when they end.

Rules: the first one serves before the others are started, so that what no worker could do is said
once. A worker that ends before it has ever served ends the server; one that ends later is replaced,
as `runtime/restarts.py` says. One that cannot be started again, since a file is broken or memory is
short, is tried again for as long as another one serves. Each process gets a fresh socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import zmq
import zmq.asyncio

from millstream.errors import EngineLost, StartupError
from millstream.http_workers.messages import FromHub, Serving, ToHub, decode_to_hub, encode
from millstream.runtime.host import new_endpoint
from millstream.runtime.restarts import MAX_DELAY, Restarts

log = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 0.1
_KILLED_SECONDS = 5.0


class WorkersListener(Protocol):
    """Who hears what becomes of the workers. Called on the event loop; must not block."""

    def greet(self, worker: int) -> None:
        """The process of a worker is being started, and hears what it is sent from now on."""
        ...

    def on_worker_message(self, worker: int, message: ToHub) -> None: ...

    def on_worker_end(self, worker: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker is started. handed: its standard input, by its number, how many of that number
    came before it, and its endpoint; it begins with a line, and is open for as long as we live.
    descriptors: those that it inherits, by its number."""

    command: Sequence[str]
    handed: Callable[[int, int, str], bytes]
    descriptors: Callable[[int], Sequence[int]]


class WorkerProcesses:
    """All of them. Use from one event loop."""

    def __init__(
        self, launch: Launch, *, count: int, max_restarts: int | None, pause: float = MAX_DELAY
    ) -> None:
        """max_restarts: in a row, of each worker; None for any number. pause: seconds between tries
        of one that cannot be started again."""
        self._launch = launch
        self._pause = pause
        self._restarts = [Restarts(max_restarts) for _ in range(count)]
        self._sockets: list[zmq.asyncio.Socket | None] = [None] * count
        self._processes: list[asyncio.subprocess.Process | None] = [None] * count
        self._serves = [asyncio.Event() for _ in range(count)]
        self._num_starts = [0] * count
        self._starting: set[int] = set()
        self._serving: set[int] = set()
        self._may_follow = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._context = zmq.asyncio.Context()

    def send(self, worker: int, message: FromHub) -> None:
        """Sends to a worker; without one, nothing: the next one is greeted."""
        if (socket := self._sockets[worker]) is not None:
            # Sends at once; only a process that has not connected yet makes it wait its turn.
            socket.send(encode(message))

    @property
    def pids(self) -> dict[int, int]:
        """The processes that have not ended, by their workers' numbers. Any thread may ask."""
        return {
            worker: process.pid
            for worker, process in enumerate(self._processes)
            if process is not None and process.returncode is None
        }

    async def wait_serving(self) -> None:
        """Waits until all of them take connections."""
        for serves in self._serves:
            await serves.wait()

    def start_no_more(self) -> None:
        """Replaces none that ends from now on, and ends those that serve nobody yet."""
        self._is_ending.set()
        self._may_follow.set()
        self._kill(self._starting)

    async def run(self, listener: WorkersListener) -> None:
        """Runs them until all have ended after `start_no_more()`. Raises StartupError when one
        cannot be started, or not again."""
        tasks = [asyncio.create_task(self._run(n, listener)) for n in range(len(self._serves))]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.start_no_more()
            self.kill()
            await asyncio.wait(tasks, timeout=_KILLED_SECONDS)  # they wait for their processes
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._context.term()

    def kill(self) -> None:
        """Ends all processes at once."""
        self._kill(range(len(self._processes)))

    def _kill(self, workers: Iterable[int]) -> None:
        for worker in workers:
            process = self._processes[worker]
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    async def _run(self, worker: int, listener: WorkersListener) -> None:
        """One process after the other, of one number."""
        if worker > 0:
            await self._may_follow.wait()
        serves, restarts = self._serves[worker], self._restarts[worker]
        while not self._is_ending.is_set():
            had_served = serves.is_set()
            began = time.monotonic()
            how = await self._run_once(worker, listener)
            has_served = worker in self._serving
            self._serving.discard(worker)
            listener.on_worker_end(worker)
            if self._is_ending.is_set():
                return
            if not serves.is_set():
                # One that ends so has said why.
                has_said = how == f"ended with status {StartupError.exit_status}"
                why = f"HTTP worker {worker} could not start: it {how}"
                raise StartupError("" if has_said else why)
            delay = restarts.delay(time.monotonic() - began if had_served else 0.0)
            if delay is None and not has_served and self._serving:
                delay = self._pause
            if delay is None:
                raise EngineLost(f"HTTP worker {worker} cannot go on: it {how}, once more")
            log.error("HTTP worker %d %s; it is started again", worker, how)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), timeout=delay)

    async def _run_once(self, worker: int, listener: WorkersListener) -> str:
        """Runs one process until it ends; returns how it ended."""
        endpoint = new_endpoint()
        with contextlib.ExitStack() as stack:
            try:
                socket = self._context.socket(zmq.PAIR)
                stack.callback(socket.close, linger=0)
                socket.set_hwm(0)
                if sys.platform == "linux":  # a name of the kernel's has no permissions
                    socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
                socket.bind(endpoint)
                # Intentional: its own session, so that Ctrl-C reaches only us and we can drain.
                process = await asyncio.create_subprocess_exec(
                    *self._launch.command,
                    stdin=asyncio.subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=self._launch.descriptors(worker),
                )
            except (OSError, zmq.ZMQError) as error:
                return f"could not be started ({error})"
            assert process.stdin is not None, "a pipe was asked for"
            process.stdin.write(self._launch.handed(worker, self._num_starts[worker], endpoint))
            self._num_starts[worker] += 1
            self._processes[worker], self._sockets[worker] = process, socket
            self._starting.add(worker)
            listener.greet(worker)
            try:
                return await self._follow(worker, process, socket, listener)
            finally:
                self._sockets[worker] = None
                self._starting.discard(worker)
                process.stdin.close()

    async def _follow(
        self,
        worker: int,
        process: asyncio.subprocess.Process,
        socket: zmq.asyncio.Socket,
        listener: WorkersListener,
    ) -> str:
        ending = asyncio.create_task(process.wait())
        receiving = asyncio.create_task(self._receive(worker, socket, listener))
        try:
            await asyncio.wait([ending, receiving], return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                log.error(
                    "HTTP worker %d is not understood", worker, exc_info=receiving.exception()
                )
                process.kill()
            code = await ending
            # What it said last may still be under way.
            await asyncio.wait([receiving], timeout=_LAST_WORDS_SECONDS)
        finally:
            for task in (ending, receiving):
                task.cancel()
            await asyncio.gather(ending, receiving, return_exceptions=True)
        return f"ended with {f'signal {-code}' if code < 0 else f'status {code}'}"

    async def _receive(
        self, worker: int, socket: zmq.asyncio.Socket, listener: WorkersListener
    ) -> None:
        while True:
            message = decode_to_hub(await socket.recv())
            if isinstance(message, Serving):
                self._starting.discard(worker)
                self._serving.add(worker)
                self._serves[worker].set()
                self._may_follow.set()
            else:
                listener.on_worker_message(worker, message)
