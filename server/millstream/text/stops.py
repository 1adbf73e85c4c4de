"""Stop strings: text that ends the answer and never reaches the client, unless it asks for it.

Rule: the result does not depend on how the text was cut into pieces. The match that ends first
wins; of several that end there, the longest. Held back is only what may still become a match.

Text arrives in pieces that know nothing of stop strings. After each piece the matcher looks for a
match in what is pending; if there is none, it keeps the longest end that is the beginning of some
stop string and lets the rest go.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Watches one answer for any of `stops` (non-empty strings).

    include_stop: the stop string itself is shown. matched: the one that ended the answer.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._include_stop = include_stop
        self._pending = ""
        self._num_exempt = 0  # so much of the pending text is no place for a match to end
        self.matched: str | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self.matched is not None

    def push(self, text: str, *, can_stop: bool = True) -> str:
        """The text that may be shown now. After a match, nothing more.

        can_stop: False if no match may end in this text. It may begin there.
        """
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        self._pending += text
        if not can_stop:
            self._num_exempt = len(self._pending)
        elif (match := self._first_match()) is not None:
            size, self.matched = match
            shown, self._pending = self._pending[:size], ""
            return shown
        return self._release(len(self._pending) - self._num_undecided())

    def flush(self) -> str:
        """What was held back and did not become a match."""
        return self._release(len(self._pending))

    def _release(self, size: int) -> str:
        shown, self._pending = self._pending[:size], self._pending[size:]
        self._num_exempt = max(self._num_exempt - size, 0)
        return shown

    def _first_match(self) -> tuple[int, str] | None:
        """How much of the pending text is shown if a match ends in it, and the match."""
        found = []
        for stop in self._stops:
            start = self._pending.find(stop, max(self._num_exempt - len(stop) + 1, 0))
            if start >= 0:
                found.append((start + len(stop), start, stop))
        if not found:
            return None
        end, start, stop = min(found)
        return end if self._include_stop else start, stop

    def _num_undecided(self) -> int:
        """Length of the longest end of the pending text that begins a stop string."""
        for size in range(min(self._longest - 1, len(self._pending)), 0, -1):
            end = self._pending[-size:]
            for stop in self._stops:
                if stop.startswith(end):
                    return size
        return 0
