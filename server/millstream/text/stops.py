"""Stop strings: text that ends the answer and never reaches the client.

Rule: the result does not depend on how the text was cut into pieces. The match that ends first
wins; of several that end there, the longest. Held back is only what may still become a match.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Watches one answer for any of `stops` (non-empty strings)."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """The text that may be shown now. After a match, nothing more."""
        if self.is_stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        match = self._first_match()
        if match is not None:
            self.is_stopped = True
            shown, self._held = self._held[:match], ""
            return shown
        size = self._num_undecided()
        shown, self._held = (
            self._held[: len(self._held) - size],
            self._held[len(self._held) - size :],
        )
        return shown

    def flush(self) -> str:
        """What was held back and did not become a match."""
        shown, self._held = self._held, ""
        return shown

    def _first_match(self) -> int | None:
        """Where the winning match starts."""
        found = [
            (start + len(stop), start)
            for stop in self._stops
            if (start := self._held.find(stop)) >= 0
        ]
        return min(found)[1] if found else None

    def _num_undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(len(stop) for stop in self._stops) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
