"""Whether HTTP workers go on: each says when its event loop last turned, and the hub looks.

Rules: a worker that says nothing for too long is ended, and replaced as one that has ended by
itself. If it is stopped while it holds the lock of memory that all share, it alone is ended: the
others, which wait for that lock and say nothing either, go on. Nobody waits for a lock here, and
the hub looks from a thread of its own, since its event loop may be among those that wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from millstream.runtime.stuck_stacks import stacks_of
from millstream.shared_memory import SharedMemory

log = logging.getLogger(__name__)

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_ITEM_BYTES = 8


class Pulses:
    """When each worker last said that it goes on, by `time.monotonic()`, which is the same in all
    processes; 0 if nobody is to wait for it, as while it starts or ends."""

    def __init__(self, memory: SharedMemory) -> None:
        """memory: of `num_bytes(workers)` bytes."""
        self._times = memory.buffer.cast("d")

    @staticmethod
    def num_bytes(num_workers: int) -> int:
        """The size of the memory for so many workers."""
        return num_workers * _ITEM_BYTES

    def last(self, worker: int) -> float:
        """When the worker last said it."""
        return self._times[worker]

    def clear(self, worker: int) -> None:
        """Nobody is to wait for this worker until it says something again."""
        self._times[worker] = 0.0

    async def keep_beating(self, worker: int) -> None:
        """Says again and again that this worker goes on, for as long as it is not cancelled."""
        try:
            while True:
                self._times[worker] = time.monotonic()
                await asyncio.sleep(_BEAT_SECONDS)
        finally:
            self.clear(worker)


@dataclass
class PulseWatch:
    """Finds the workers that do not go on.

    patience: seconds in which a worker may say nothing. pids: the processes that have not ended, by
    their workers' numbers. locked: the memories whose locks workers take.
    """

    pulses: Pulses
    patience: float
    pids: Callable[[], Mapping[int, int]]
    locked: Sequence[SharedMemory]

    def __post_init__(self) -> None:
        self._looked = self._forgiven = time.monotonic()

    def find(self, now: float) -> dict[int, int]:
        """The processes that are to be ended, by their workers' numbers. To be called again and
        again, more often than the patience is long."""
        if now - self._looked > self.patience / 2:
            # This process was stopped, and most likely all of them (a container that is paused).
            self._forgiven = now
        self._looked = now
        silent = {
            worker: pid
            for worker, pid in self.pids().items()
            if (last := self.pulses.last(worker))
            and now - max(last, self._forgiven) > self.patience
        }
        if not silent:
            return {}
        # Whoever has waited for those that are ended now gets the time to say something.
        self._forgiven = now
        holders = {memory.lock_holder() for memory in self.locked}
        holding = {worker: pid for worker, pid in silent.items() if pid in holders}
        return holding or silent


@contextmanager
def watched(watch: PulseWatch) -> Iterator[None]:
    """Ends those that do not go on, from a thread."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            for worker, pid in watch.find(time.monotonic()).items():
                where = asyncio.run(stacks_of(pid)) or "it does not say where"
                silence = watch.patience
                log.error("HTTP worker %d is stuck for %.0f s; it ends\n%s", worker, silence, where)
                if pid in watch.pids().values():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    threading.Thread(target=look, name="pulse-watch", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
