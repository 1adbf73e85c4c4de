"""Whether an engine that has ended gets a successor, and when.

Rules: the first one comes at once, later ones after pauses that double up to MAX_DELAY. An engine
that served for STEADY_SECONDS makes all before it forgotten. So a single accident costs a start,
and what always ends the engine ends the server, which whoever supervises it can see.
"""

from __future__ import annotations

STEADY_SECONDS = 600.0
MAX_DELAY = 30.0


class Restarts:
    """Counts the engines that ended soon. limit: of successors; None for any number."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.num_ends = 0

    def delay(self, served: float) -> float | None:
        """Seconds from an engine's end to the next start; None if there is to be none.

        served: seconds from when that engine was ready to its end.
        """
        if served >= STEADY_SECONDS:
            self.num_ends = 0
        self.num_ends += 1
        if self._limit is not None and self.num_ends > self._limit:
            return None
        return min(2.0 ** (self.num_ends - 1) - 1.0, MAX_DELAY)
