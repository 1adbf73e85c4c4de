"""What the readers of calls have in common: where they write, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from millstream.text.parsing.output import Delta, ToolCallArguments, ToolCallStart


class Outcome(Enum):
    """How far a call has come."""

    MORE = auto()  # the call goes on
    DONE = auto()  # the call is complete
    BROKEN = auto()  # this is no call, or no longer


class CallWriter:
    """Delivers one call. Once it has started, it cannot be taken back."""

    def __init__(self, index: int, emit: Callable[[Delta], None]) -> None:
        self._index = index
        self._emit = emit
        self.has_started = False

    def start(self, name: str) -> None:
        self.has_started = True
        self._emit(ToolCallStart(self._index, name))

    def write(self, text: str) -> None:
        self._emit(ToolCallArguments(self._index, text))


class CallReader(Protocol):
    """Reads the text of one call, after the marker that opens it."""

    def read(self, text: str, *, is_last: bool) -> tuple[int, Outcome]:
        """Returns how many characters were used; the next text begins with those that were not."""
        ...
