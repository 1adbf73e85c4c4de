"""How the engine stands, for all HTTP workers: written by the hub, read by them.

A worker hears only of steps that bring it something. What it is asked about the engine it reads
here, so that it is never older than what any of them knows.
"""

from __future__ import annotations

import time
from collections import Counter

import msgspec

from millstream.core.status import Statistics
from millstream.runtime.engine_history import EngineHistory
from millstream.shared_memory import SharedMemory

NUM_BYTES = 16 * 1024
"""The size of the memory. What is written there has a few hundred."""

_LENGTH_BYTES = 4


class _Standing(msgspec.Struct, frozen=True):
    """What is written. waiting_since: when the engine last said something while somebody waited for
    it, by `time.monotonic()`, which is the same in all processes; None if nobody waits."""

    statistics: Statistics
    counted_before: dict[str, int]
    num_restarts: int
    waiting_since: float | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Standing).decode


class StatusWriter:
    """The hub's side: an EngineStatus that everybody can read."""

    def __init__(self, memory: SharedMemory) -> None:
        """memory: of NUM_BYTES."""
        self._memory = memory
        self.statistics = Statistics()
        self.history = EngineHistory()
        self._waiting_since: float | None = None
        self._write()

    def on_step(self, statistics: Statistics) -> None:
        self.statistics = statistics
        if self._waiting_since is not None:
            self._waiting_since = time.monotonic()
        self._write()

    def on_end(self, *, is_replaced: bool) -> None:
        self.history.on_end(self.statistics, is_replaced=is_replaced)
        self.statistics, self._waiting_since = Statistics(), None
        self._write()

    def on_waiting(self, *, is_waiting: bool) -> None:
        """Whether anybody waits for the engine has changed."""
        self._waiting_since = time.monotonic() if is_waiting else None
        self._write()

    def _write(self) -> None:
        counted = dict(self.history.counted_before)
        standing = _Standing(
            self.statistics, counted, self.history.num_restarts, self._waiting_since
        )
        data = _encode(standing)
        with self._memory.locked() as buffer:
            buffer[:_LENGTH_BYTES] = len(data).to_bytes(_LENGTH_BYTES, "little")
            buffer[_LENGTH_BYTES : _LENGTH_BYTES + len(data)] = data


class StatusReader:
    """A worker's side: an EngineStatus that others write."""

    def __init__(self, memory: SharedMemory) -> None:
        """memory: that of the StatusWriter, which has written."""
        self._memory = memory

    @property
    def statistics(self) -> Statistics:
        return self._read().statistics

    @property
    def history(self) -> EngineHistory:
        standing, history = self._read(), EngineHistory()
        history.num_restarts = standing.num_restarts
        history.counted_before = Counter(standing.counted_before)
        return history

    @property
    def silence(self) -> float | None:
        """Seconds in which somebody waited and the engine said nothing; None if nobody waits."""
        since = self._read().waiting_since
        return None if since is None else time.monotonic() - since

    def on_step(self, statistics: Statistics) -> None:
        """The hub has written it."""

    def on_end(self, *, is_replaced: bool) -> None:
        """The hub has written it."""

    def _read(self) -> _Standing:
        with self._memory.locked() as buffer:
            length = int.from_bytes(buffer[:_LENGTH_BYTES], "little")
            return _decode(buffer[_LENGTH_BYTES : _LENGTH_BYTES + length])
