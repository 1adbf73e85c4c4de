"""When whoever is refused is to come again: once a place is likely to be free for them.

Theory of operation: whoever is refused gets a turn behind those who were refused before, one place
after the other at the rate at which places become free, and is told how long that will take. All
refused at once would come back at once otherwise, and all but a few would be refused again.

The rate is measured from the first refusal on, because only a full house shows it. To begin with,
it is taken to be what it was the last time, or a guess, that counts as much as a few ends.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

MAX_WAIT = 60
"""Seconds. The clients of OpenAI and others do not believe more."""

_FIRST_GUESS = 15.0  # seconds in which all places are taken anew
_GUESS_WEIGHT = 4  # ends
_CALM_SECONDS = 60.0  # without a refusal, after which the next one begins anew
_JITTER = 0.25


class Turnover:
    """The ends of requests, and the turns of those who were refused. places: in all."""

    def __init__(
        self,
        *,
        places: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._rate = places / _FIRST_GUESS
        self._guess = self._rate
        self._began = self._last = self._turn = -math.inf
        self._num_ends = 0

    def on_end(self) -> None:
        """Counts a place that has become free."""
        self._num_ends += 1

    def wait(self, count: int = 1) -> int:
        """Whole seconds after which to ask for so many places again, at least one."""
        now = self._clock()
        if now - self._last > _CALM_SECONDS:
            self._began, self._num_ends, self._guess = now, 0, self._rate
        self._last = now
        seconds = now - self._began + _GUESS_WEIGHT / self._guess
        self._rate = (self._num_ends + _GUESS_WEIGHT) / seconds
        self._turn = min(max(self._turn, now) + count / self._rate, now + MAX_WAIT)
        wait = (self._turn - now) * (1 + _JITTER * self._chance())
        return min(math.ceil(wait), MAX_WAIT)
