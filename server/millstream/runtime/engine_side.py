"""The engine's side of the socket: build the runner, say Ready, run the loop.

The same function runs in a process of its own (the server) and in a thread (tests, embedding);
only the ZeroMQ endpoint differs.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

import zmq

from millstream.core.blocks import BlockPool
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.errors import StartupError
from millstream.runtime.compiling_channel import CompilingChannel, CompilingThread
from millstream.runtime.loop import EngineLoop
from millstream.runtime.messages import (
    Ended,
    Fatal,
    FromEngine,
    Ready,
    ToEngine,
    decode_to_engine,
    encode,
)
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.speculation import guesses_for, log_guesses
from millstream.runtime.start_reports import StartReports

log = logging.getLogger(__name__)

_ARCHIVE_SECONDS = 3.0  # at the end, for blocks that are still to be written


class SocketChannel:
    """A PAIR socket as a channel. For one thread, but for `wake()`; `close()` it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._read_end, zmq.POLLIN)

    def receive(self) -> ToEngine | None:
        """Waits for the next message; None after `wake()`."""
        if self._read_end in dict(self._poller.poll()):
            os.read(self._read_end, 4096)
        return self.receive_nowait()

    def receive_nowait(self) -> ToEngine | None:
        """The next message if one is there."""
        if not self._socket.poll(0):
            return None
        return decode_to_engine(self._socket.recv(zmq.NOBLOCK))

    def send(self, message: FromEngine) -> None:
        """Sends to the client."""
        self._socket.send(encode(message))

    def wake(self) -> None:
        """From any thread: lets `receive()` return."""
        with contextlib.suppress(OSError):  # full, so it will wake, or closed
            os.write(self._write_end, b"w")

    def close(self) -> None:
        """Closes the socket too."""
        self._socket.close()
        os.close(self._read_end)
        os.close(self._write_end)


def run_engine(
    *,
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    build_runner: Callable[[], Runner],
    max_running: int,
    max_queue_seconds: float | None = None,
    speculate: int | None = None,
    reports: StartReports | None = None,
) -> None:
    """Serves one engine on `endpoint` until told to stop.

    A StartupError of `build_runner` is reported as Fatal; any other exception ends the caller's
    thread or process, which its supervisor notices. speculate: guesses for an answer in a step, by
    default where that is possible. reports: what `build_runner` calls.
    """
    socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    socket.set_hwm(0)
    socket.linger = 1000
    socket.connect(endpoint)
    channel = SocketChannel(socket)
    reports = reports or StartReports()
    reports.connect(channel.send)
    try:
        try:
            runner = build_runner()
        except StartupError as error:
            channel.send(Fatal(error.message))
            channel.send(Ended())
            return
        reports.connect(None)
        info = runner.info
        scheduler = Scheduler(
            pool=BlockPool(num_blocks=info.num_blocks, block_size=info.block_size),
            max_running=max_running,
            max_step_tokens=info.max_step_tokens,
            target_seconds=info.target_itl_seconds,
            states=StatePool.of(info),
            archive=runner.archive,
            guesses=guesses_for(runner, speculate),
        )
        channel.send(Ready(info))
        EngineLoop(
            scheduler=scheduler,
            runner=runner,
            channel=CompilingChannel(channel, runner, submit=CompilingThread().submit),
            max_queue_seconds=max_queue_seconds,
        ).run()
        scheduler.close(seconds=_ARCHIVE_SECONDS)
        log_guesses(scheduler.statistics())
        channel.send(Ended())
    finally:
        channel.close()
