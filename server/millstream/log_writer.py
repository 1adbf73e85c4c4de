"""Lines to a pipe or a terminal, whose reader may stop reading at any moment.

Rules:
1. `put()` never waits: a thread writes. Beyond what may wait, lines are lost, and counted; how many
   is written in their place as soon as half of what waited has been.
2. `close()` writes what waits, but not for ever: a reader that reads nothing for a second is left.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

_MAX_WAITING = 4 * 2**20
_PATIENCE = 1.0


class LineWriter:
    """Writes to a file descriptor of a file, pipe, socket or terminal. Safe for threads."""

    def __init__(
        self, descriptor: int, *, told_lost: Callable[[int], str], max_waiting: int = _MAX_WAITING
    ) -> None:
        """told_lost: the line that stands for so many that were lost. max_waiting: characters; a
        line that is longer than that waits alone."""
        self._descriptor = descriptor
        self._told_lost = told_lost
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._num_waiting = 0  # characters, with those that are being written
        self._num_written = 0
        self._num_lost = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def put(self, line: str) -> None:
        """Takes a line, with its end, or loses it."""
        with self._changed:
            limit = self._max_waiting / 2 if self._num_lost else self._max_waiting
            if self._num_waiting and self._num_waiting + len(line) > limit:
                self._num_lost += 1
                return
            self._tell_lost()
            self._append(line)
            if self._thread is None or not self._thread.is_alive():  # as in a child that was forked
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Characters that are not written yet."""
        return self._num_waiting

    @property
    def num_lost(self) -> int:
        """Lines that were lost and are not told of yet."""
        return self._num_lost

    def flush(self) -> None:
        """Waits until everything is written, for as long as something is."""
        with self._changed:
            while self._num_waiting:
                before = self._num_written
                self._changed.wait_for(lambda: self._num_written != before, _PATIENCE)  # noqa: B023
                if self._num_written == before:
                    return

    def close(self) -> None:
        """Writes what waits, as `flush()` does, and takes no more. Idempotent."""
        with self._changed:
            self._tell_lost()
        self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._num_waiting += len(line)
        self._changed.notify_all()

    def _tell_lost(self) -> None:
        if self._num_lost:
            self._append(self._told_lost(self._num_lost))
            self._num_lost = 0

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if not self._lines:
                    return
                line = self._lines.popleft()
            self._write(line)
            with self._changed:
                self._num_waiting -= len(line)
                self._num_written += 1
                self._changed.notify_all()

    def _write(self, line: str) -> None:
        # Intentional: not through sys.stderr, whose lock Python wants when it ends.
        left = memoryview(line.encode("utf-8", "backslashreplace"))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody has made it so for all who share it
                select.select([], [self._descriptor], [])
            except OSError:  # nobody reads it any more
                return
