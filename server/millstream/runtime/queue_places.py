"""Who waits in the engine for their turn, and at which place."""

from __future__ import annotations

import itertools
from bisect import bisect_left


class QueuePlaces:
    """The requests that were sent and do not run yet, in the order in which they were sent."""

    def __init__(self) -> None:
        self._counter = itertools.count()
        self._numbers: dict[int, int] = {}
        self._waiting: list[int] = []

    def enter(self, request_id: int) -> None:
        """Puts a request at the end."""
        self._numbers[request_id] = number = next(self._counter)
        self._waiting.append(number)

    def leave(self, request_id: int) -> None:
        """Takes out a request that runs or has ended; others are ignored."""
        number = self._numbers.pop(request_id, None)
        if number is not None:
            del self._waiting[bisect_left(self._waiting, number)]

    def position(self, request_id: int) -> int | None:
        """The place of a request, 1 for the first; None for one that does not wait."""
        number = self._numbers.get(request_id)
        return None if number is None else bisect_left(self._waiting, number) + 1
