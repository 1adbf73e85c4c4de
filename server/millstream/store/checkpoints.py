"""Copies SQLite's log into its file, in whatever thread calls."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from millstream.store.address import StoreAddress
from millstream.store.database import open_plainly

_BUSY_SECONDS = 0.05
"""Short: whoever cuts off the log holds the writer's lock while it waits for readers."""
_LARGE_LOG = 4 * 2**20
_LONGEST_WAIT = 5.0


class Checkpoints:
    """A connection of its own, made when first needed. Other databases need none of this."""

    def __init__(self, address: StoreAddress) -> None:
        self._path = address.path
        self._connection: sqlite3.Connection | None = None
        self._seen = 0
        self._last = time.monotonic()

    def run(self, must_cut: bool) -> bool:  # noqa: FBT001
        """Copies if there is enough, or for long nothing was. Returns whether the log is cut off.

        Raises sqlite3.Error or OSError.
        """
        if self._path is None:
            return True
        if not must_cut and not self._is_due():
            return False
        self._last = time.monotonic()
        if self._connection is None:
            self._connection = open_plainly(self._path, _BUSY_SECONDS)
        try:
            self._checkpoint("PASSIVE")
            is_cut = must_cut and self._checkpoint("TRUNCATE")
        except BaseException:
            self.close()
            raise
        self._seen = self._written()
        return is_cut

    def close(self) -> None:
        """Closes the connection; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _checkpoint(self, mode: str) -> bool:
        assert self._connection is not None
        is_busy, *_ = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return not is_busy

    def _is_due(self) -> bool:
        written = self._written()
        if written == self._seen:
            return False
        return time.monotonic() - self._last >= _LONGEST_WAIT or self._length() >= _LARGE_LOG

    def _written(self) -> int:
        """When the log was last written, as the file system says."""
        try:
            return self._log().stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _length(self) -> int:
        return self._log().stat().st_size

    def _log(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}-wal")
