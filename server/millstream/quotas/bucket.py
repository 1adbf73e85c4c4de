"""The token bucket by which requests and tokens per minute are limited.

It holds a minute's worth, and fills up evenly. What costs more than was thought takes it below
zero, so that over the minutes nobody gets more than the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

_SECONDS = 60.0


@dataclass(slots=True)
class TokenBucket:
    """level: what can be taken; below zero after more was taken than there was."""

    per_minute: int
    level: float

    @classmethod
    def full(cls, per_minute: int) -> Self:
        """A bucket from which a minute's worth can be taken."""
        return cls(per_minute, float(per_minute))

    def fill(self, seconds: float) -> None:
        """Adds what becomes free in so many seconds."""
        self.take(-seconds * self.per_minute / _SECONDS)

    def take(self, amount: float) -> None:
        """Takes it, whether or not it is there; a negative amount is given back."""
        self.level = min(self.level - amount, float(self.per_minute))

    def seconds_until(self, level: float) -> float:
        """When so much can be taken, if nobody takes anything before; at most a minute's worth."""
        missing = min(level, float(self.per_minute)) - self.level
        return max(missing, 0.0) * _SECONDS / self.per_minute

    def change(self, per_minute: int) -> None:
        """Has another limit from now on. What was taken stays taken."""
        self.level += per_minute - self.per_minute
        self.per_minute = per_minute
