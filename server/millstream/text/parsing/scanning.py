"""Finding markers in a text that is still growing, and the white space around them.

Rule: nothing depends on how the text was cut. A match counts only when no marker that begins
before it can still be completed, and what may become a marker is not yet text.

Tokens cut text anywhere, so a marker may have arrived by half. The `regex` package can search for
partial matches: an end of the text that more text could make a match. `scan` gives three answers at
once: which marker stands first, if that is decided; and how much of the text certainly belongs to
none, so that it can go to the client now. What is left is searched again together with what comes
next.

White space beside markers is layout: `AnswerText` drops it at the edges of a text, and keeps one
run of it where text stands on both sides of a marker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import regex


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled once for all requests."""
    return regex.compile(pattern)


@lru_cache(maxsize=1024)
def _any_of(patterns: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("|".join(f"(?:{pattern})" for pattern in patterns))


def may_hold(text: str, patterns: tuple[str, ...], *, is_last: bool = False) -> bool:
    """Whether there is a match of any of the patterns, or the beginning of one at the end."""
    if not patterns:
        return False
    match = _any_of(patterns).search(text, partial=not is_last)
    return match is not None and match.start() < len(text)


def scan(
    text: str, patterns: tuple[str, ...], *, is_last: bool
) -> tuple[int, regex.Match[str] | None, int]:
    """The first match of any of the patterns, and how much text before it is certain.

    Returns the pattern's place, its match (None: no match yet, the place then means nothing) and
    the length of the text that belongs to no marker. is_last: no text follows.
    """
    # Most text holds no marker, which one search tells.
    if not may_hold(text, patterns, is_last=is_last):
        return 0, None, len(text)
    found: regex.Match[str] | None = None
    place, certain = 0, len(text)
    for index, pattern in enumerate(patterns):
        match = compiled(pattern).search(text, partial=not is_last)
        if match is None:
            continue
        if match.partial:
            certain = min(certain, match.start())
        elif found is None or _rank(match) < _rank(found):
            place, found = index, match
    if found is not None and found.start() < certain:
        return place, found, found.start()
    return 0, None, certain


def _rank(match: regex.Match[str]) -> tuple[int, int]:
    """The first match wins; of several that begin there, the longest."""
    return match.start(), -match.end()


def next_of(
    text: str, patterns: tuple[str, ...], *, is_last: bool
) -> tuple[int, regex.Match[str] | None, bool]:
    """Which of the patterns the text begins with, after white space.

    Returns the pattern's place, its match, and whether the answer is certain.
    """
    is_certain = True
    for index, pattern in enumerate(patterns):
        match = compiled(rf"\s*(?:{pattern})").match(text, partial=not is_last)
        if match is not None and not match.partial:
            return index, match, True
        is_certain = is_certain and match is None
    return 0, None, is_certain


class AnswerText:
    """One of the two texts of an answer. White space at markers counts only between two texts."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._space = ""  # seen last, and perhaps before a marker
        self._gap = ""  # the longest white space around the markers since the last text
        self._is_at_marker = False
        self.is_blank = True

    def write(self, text: str) -> None:
        """Emits text, but for white space at its end, which a marker may follow."""
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if not shown:
            return
        if self._is_at_marker:
            body = shown.lstrip()
            gap = max(self._gap, shown[: len(shown) - len(body)], key=len)
            shown = body if self.is_blank else gap + body
        self._emit(shown)
        self._gap = ""
        self.is_blank = self._is_at_marker = False

    def mark(self) -> None:
        """A marker stands here."""
        self._gap = max(self._gap, self._space, key=len)
        self._space = ""
        self._is_at_marker = True

    def drop_space(self) -> None:
        """Forgets white space that has not been decided on."""
        self._space = self._gap = ""

    def finish(self) -> None:
        """Emits the white space at the end of the answer, unless a marker stands there."""
        if not self._is_at_marker:
            self._emit(self._space)
        self._space = ""
