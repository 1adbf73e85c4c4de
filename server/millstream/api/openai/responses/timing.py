"""When what of an answer came, as whoever waits for it counts: from the moment it was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextDelta


@closed
class Timing(TypedDict):
    """Seconds. queue: waited in the engine for a turn; null if it never came.

    first_token, total: from the request on; total to its end, or until now. reasoning: in thoughts;
    null if there were none.
    """

    queue_seconds: float | None
    first_token_seconds: float | None
    reasoning_seconds: float | None
    total_seconds: float


class AnswerTiming:
    """The clock of one answer, which starts when this is made. stream: what it is made of."""

    def __init__(self, stream: TokenStream, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._end: float | None = None
        self._thought = 0.0
        self._thinks_since: float | None = None
        self._has_thought = False
        self.first_token: float | None = None
        """When that came, by the clock."""

    def note(self, delta: TextDelta) -> None:
        """Takes the time of what has just come."""
        if self.first_token is None:
            self.first_token = self._clock()
        if delta.num_reasoning:
            if self._thinks_since is None:
                self._thinks_since = self._clock()
                self._has_thought = True
        elif self._thinks_since is not None and delta.parts:
            self._stop_thinking()

    def end(self) -> None:
        """Stops the clock, once."""
        if self._end is None:
            self._end = self._clock()
            self._stop_thinking()

    def shown(self) -> Timing:
        """What is known so far."""
        now = self._clock() if self._end is None else self._end
        thought = self._thought + (0.0 if self._thinks_since is None else now - self._thinks_since)
        first = self.first_token
        return Timing(
            queue_seconds=_rounded(self._stream.queue_seconds),
            first_token_seconds=None if first is None else _rounded(first - self._start),
            reasoning_seconds=_rounded(thought) if self._has_thought else None,
            total_seconds=round(now - self._start, 6),
        )

    def _stop_thinking(self) -> None:
        if self._thinks_since is not None:
            self._thought += self._clock() - self._thinks_since
            self._thinks_since = None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
