"""Accounts that all HTTP processes of a server see: a key's limits hold over all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from millstream.quotas.account import Account, AccountState, Clock
from millstream.quotas.shared_table import SharedTable


class SharedLedger:
    """The accounts in a table, for one process. worker: its number. clock: seconds, the same in all
    processes of the machine; Python's monotonic clock is, as it counts from the machine's start."""

    def __init__(self, table: SharedTable, *, worker: int, clock: Clock = time.monotonic) -> None:
        self._table = table
        self._worker = worker
        self._clock = clock

    def accounts(self, digests: Sequence[bytes]) -> list[Account]:
        """Those that other processes have or had of these keys too, and new ones for new keys.

        Raises StartupError if the table is full.
        """
        return [
            _SharedAccount(self._table, row, worker=self._worker, clock=self._clock)
            for row in self._table.rows(digests)
        ]


class _SharedAccount:
    def __init__(self, table: SharedTable, row: int, *, worker: int, clock: Clock) -> None:
        self._table = table
        self._row = row
        self._worker = worker
        self._clock = clock

    @contextmanager
    def held(self) -> Iterator[AccountState]:
        with self._table.locked():
            state = self._table.read(self._row)
            num_open = state.counts.num_open
            state.fill(self._clock())
            try:
                yield state
            finally:
                self._table.write(self._row, state)
                opened = state.counts.num_open - num_open
                self._table.add_open(self._row, opened, worker=self._worker)
