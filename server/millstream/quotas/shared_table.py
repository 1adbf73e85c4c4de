"""The accounts of all keys in memory that the HTTP processes of a server share.

Layout: the number of rows in use; for each process one column, with the answers that hold a place
in it, by rows; the rows, each with a key's SHA-256 and the rest of its account's state.

Rules:
1. Everything but `clear_worker()` and `rows()`, which hold the lock themselves, is for whoever
   holds it.
2. A row stays its key's for as long as the memory is there, also when the key is no longer in the
   file: a process that reads the file later may still let its owner in, and a key that comes back
   has not regained what it used.
3. A row is changed by one call, less than a microsecond long: a process that is killed anywhere
   else has changed nothing of it, or all. The answers that it had open are in its column, which
   whoever started it clears.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager

from millstream.errors import StartupError
from millstream.quotas.account import CONCURRENT, REQUESTS, TOKENS, AccountState, KeyCounts
from millstream.quotas.bucket import TokenBucket
from millstream.shared_memory import SharedMemory

_INTEGER_BYTES = struct.calcsize("q")
_DIGEST_BYTES = 32
# Both buckets (a limit of 0 is none), when they were filled, four counters, and three of refusals.
_STATE = struct.Struct("qd qd d 4q 3q")
_ROW_BYTES = _DIGEST_BYTES + _STATE.size

_FEWEST_ROWS = 65_536
_ROWS_PER_KEY = 16


def shared_table_bytes(num_keys: int, num_workers: int) -> int:
    """How much memory to make for a server that starts with so many keys. Most of it is for keys
    that are yet to come, and is not used up before they do."""
    num_rows = max(_FEWEST_ROWS, _ROWS_PER_KEY * num_keys)
    return _INTEGER_BYTES + num_rows * (num_workers * _INTEGER_BYTES + _ROW_BYTES)


class SharedTable:
    """The table in `memory`, as this process sees it. For one thread of each process.

    num_workers: HTTP processes, the same number for all of them.
    """

    def __init__(self, memory: SharedMemory, *, num_workers: int) -> None:
        row_bytes = num_workers * _INTEGER_BYTES + _ROW_BYTES
        self._num_rows = (len(memory.buffer) - _INTEGER_BYTES) // row_bytes
        self._memory = memory
        end = _INTEGER_BYTES * (1 + num_workers * self._num_rows)
        self._num_used = memory.buffer[:_INTEGER_BYTES].cast("q")
        self._open = memory.buffer[_INTEGER_BYTES:end].cast("q")
        self._rows = memory.buffer[end:]
        self._row_of: dict[bytes, int] = {}

    def rows(self, digests: Sequence[bytes]) -> list[int]:
        """The rows of keys by their SHA-256, in this order; new ones for those that had none.

        Raises StartupError if there are not enough of these, and takes none then.
        """
        with self._memory.locked():
            self._look()
            new = [digest for digest in dict.fromkeys(digests) if digest not in self._row_of]
            num_free = self._num_rows - self._num_used[0]
            if len(new) > num_free:
                raise StartupError(
                    f"--api-keys-file: keys that are new: {len(new)}, and there is room for "
                    f"{num_free} until the server is started again"
                )
            for digest in new:
                row = self._num_used[0]
                start = row * _ROW_BYTES
                self._rows[start : start + _DIGEST_BYTES] = digest
                self._row_of[digest] = row
                self._num_used[0] = row + 1
        return [self._row_of[digest] for digest in digests]

    def locked(self) -> AbstractContextManager[object]:
        """Waits until no other process has the lock, and holds it. Not to be nested."""
        return self._memory.locked()

    def read(self, row: int) -> AccountState:
        """The state of an account, with the open answers of all processes."""
        start = row * _ROW_BYTES + _DIGEST_BYTES
        per_minute, level, tokens_per_minute, tokens_level, filled, *counted = _STATE.unpack_from(
            self._rows, start
        )
        num_requests, num_prompt, num_cached, num_generated, *refused = counted
        return AccountState(
            requests=TokenBucket(per_minute, level) if per_minute else None,
            tokens=TokenBucket(tokens_per_minute, tokens_level) if tokens_per_minute else None,
            filled=filled,
            counts=KeyCounts(
                num_open=sum(self._open[row :: self._num_rows]),
                num_requests=num_requests,
                num_prompt=num_prompt,
                num_cached=num_cached,
                num_generated=num_generated,
                refused=dict(zip((REQUESTS, TOKENS, CONCURRENT), refused, strict=True)),
            ),
        )

    def write(self, row: int, state: AccountState) -> None:
        """Writes everything but the open answers."""
        counts = state.counts
        _STATE.pack_into(
            self._rows,
            row * _ROW_BYTES + _DIGEST_BYTES,
            *_numbers(state.requests),
            *_numbers(state.tokens),
            state.filled,
            counts.num_requests,
            counts.num_prompt,
            counts.num_cached,
            counts.num_generated,
            *(counts.refused[kind] for kind in (REQUESTS, TOKENS, CONCURRENT)),
        )

    def add_open(self, row: int, count: int, *, worker: int) -> None:
        """So many more answers of a process hold a place; fewer, if it is negative."""
        self._open[worker * self._num_rows + row] += count

    def clear_worker(self, worker: int) -> None:
        """Closes the open answers of a process that has ended. Tokens that were reserved for them
        stay taken, since nobody knows how many of them were computed."""
        with self._memory.locked():
            start, num_used = worker * self._num_rows, self._num_used[0]
            zeros = memoryview(bytes(num_used * _INTEGER_BYTES)).cast("q")
            self._open[start : start + num_used] = zeros

    def _look(self) -> None:
        """Learns which rows other processes have taken meanwhile."""
        for row in range(len(self._row_of), self._num_used[0]):
            start = row * _ROW_BYTES
            self._row_of[bytes(self._rows[start : start + _DIGEST_BYTES])] = row


def _numbers(bucket: TokenBucket | None) -> tuple[int, float]:
    return (0, 0.0) if bucket is None else (bucket.per_minute, bucket.level)
