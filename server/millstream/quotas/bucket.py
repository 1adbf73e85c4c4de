"""The token bucket by which requests and tokens per minute are limited.

It holds a minute's worth, and fills up evenly. What costs more than was thought takes it below
zero, so that over the minutes nobody gets more than the limit.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]

_SECONDS = 60.0


class TokenBucket:
    """Full at first. clock: seconds that only go forward."""

    def __init__(self, per_minute: int, *, clock: Clock) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._looked = clock()

    @property
    def level(self) -> float:
        """What can be taken now; below zero after more was taken than there was."""
        now = self._clock()
        filled = self._level + (now - self._looked) * self.per_minute / _SECONDS
        self._level, self._looked = min(filled, float(self.per_minute)), now
        return self._level

    def take(self, amount: float) -> None:
        """Takes it, whether or not it is there; a negative amount is given back."""
        self._level = min(self.level - amount, float(self.per_minute))

    def seconds_until(self, level: float) -> float:
        """When so much can be taken, if nobody takes anything before; at most a minute's worth."""
        missing = min(level, float(self.per_minute)) - self.level
        return max(missing, 0.0) * _SECONDS / self.per_minute

    def change(self, per_minute: int) -> None:
        """Has another limit from now on. What was taken stays taken."""
        taken = self.per_minute - self.level
        self.per_minute = per_minute
        self._level = per_minute - taken
