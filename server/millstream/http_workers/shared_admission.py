"""The Admission of several HTTP workers, exact over all of them: a table in memory that they share.

A row is a place. A worker writes the rows of its own requests, under the table's lock; the hub
empties those of a worker that has ended. Tickets are the order in which requests were sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.core.request import Request
from millstream.errors import Overloaded
from millstream.http_workers.numbering import worker_of
from millstream.shared_memory import SharedMemory

_ROW = np.dtype([("request", "<i8"), ("ticket", "<i8"), ("num_tokens", "<i8")])
_LAST_TICKET_BYTES = 8


class SharedAdmission:
    """The places as one worker sees them, or the hub. num_taken, num_waiting_tokens and position
    count the requests of all workers."""

    def __init__(self, memory: SharedMemory, *, limit: int, max_waiting_tokens: int | None) -> None:
        """memory: of `num_bytes(limit)` bytes, which nobody else writes. limit: places."""
        self.limit = limit
        self.max_waiting_tokens = max_waiting_tokens
        self._memory = memory
        self._last_ticket = np.frombuffer(memory.buffer, "<i8", count=1)
        rows: Any = np.frombuffer(memory.buffer, _ROW, count=limit, offset=_LAST_TICKET_BYTES)
        # Views of its columns: 0 stands for no request, no ticket, no tokens.
        self._requests, self._tickets = rows["request"], rows["ticket"]
        self._num_tokens = rows["num_tokens"]
        self._rows: dict[int, int] = {}
        self._queued: set[int] = set()
        self._unanswered: set[int] = set()

    @staticmethod
    def num_bytes(limit: int) -> int:
        """The size of the memory for so many places."""
        return _LAST_TICKET_BYTES + limit * _ROW.itemsize

    @property
    def num_taken(self) -> int:
        with self._memory.locked():
            return int(np.count_nonzero(self._requests))

    @property
    def num_waiting_tokens(self) -> int:
        with self._memory.locked():
            return int(self._num_tokens.sum())

    def take(self, request_ids: Sequence[int]) -> bool:
        with self._memory.locked():
            free = np.flatnonzero(self._requests == 0)[: len(request_ids)]
            if len(free) < len(request_ids):
                return False
            self._requests[free] = request_ids
        self._rows.update(zip(request_ids, free.tolist(), strict=True))
        return True

    def send(self, request: Request) -> None:
        row = self._rows[request.id]
        # Those that follow another one wait for its prompt, not for one of their own.
        num_tokens = 0 if request.follows is not None else len(request.prompt)
        with self._memory.locked():
            waiting = int(self._num_tokens.sum())
            limit = self.max_waiting_tokens
            if num_tokens and waiting and limit is not None and waiting + num_tokens > limit:
                raise Overloaded(
                    f"Model is overloaded: {waiting} prompt tokens are waiting already",
                    flag="--max-queue-tokens",
                )
            self._last_ticket[0] += 1
            self._tickets[row] = self._last_ticket[0]
            self._num_tokens[row] = num_tokens
        self._queued.add(request.id)
        self._unanswered.add(request.id)

    def on_run(self, request_id: int) -> None:
        if request_id in self._queued:
            self._queued.discard(request_id)
            with self._memory.locked():
                self._tickets[self._rows[request_id]] = 0

    def on_news(self, request_id: int) -> None:
        if request_id in self._unanswered:
            self._unanswered.discard(request_id)
            with self._memory.locked():
                self._num_tokens[self._rows[request_id]] = 0

    def on_end(self, request_id: int) -> None:
        if request_id in self._queued or request_id in self._unanswered:
            self._queued.discard(request_id)
            self._unanswered.discard(request_id)
            with self._memory.locked():
                row = self._rows[request_id]
                self._tickets[row] = self._num_tokens[row] = 0

    def give_back(self, request_id: int) -> None:
        row = self._rows.pop(request_id, None)
        self._queued.discard(request_id)
        self._unanswered.discard(request_id)
        if row is not None:
            with self._memory.locked():
                self._requests[row] = self._tickets[row] = self._num_tokens[row] = 0

    def position(self, request_id: int) -> int | None:
        if request_id not in self._queued:
            return None
        with self._memory.locked():
            mine = self._tickets[self._rows[request_id]]
            return int(np.count_nonzero((self._tickets > 0) & (self._tickets <= mine)))

    def clear(self, worker: int) -> None:
        """For the hub: makes the places free that a worker had which has ended."""
        with self._memory.locked():
            taken = np.flatnonzero(self._requests)
            gone = [row for row in taken.tolist() if worker_of(int(self._requests[row])) == worker]
            self._requests[gone] = self._tickets[gone] = self._num_tokens[gone] = 0
