"""How the engine stands, as whoever follows it knows: what it said last, and what was counted."""

from __future__ import annotations

from typing import Protocol

from millstream.core.status import Statistics
from millstream.runtime.engine_history import EngineHistory


class EngineStatus(Protocol):
    """Hears what the engine says of itself, and shows it."""

    @property
    def statistics(self) -> Statistics:
        """What this engine said last of its work; nothing while there is none."""
        ...

    @property
    def history(self) -> EngineHistory:
        """What was counted by the engines before this one."""
        ...

    def on_step(self, statistics: Statistics) -> None:
        """A step is over, and tells how the engine stands."""
        ...

    def on_end(self, *, is_replaced: bool) -> None:
        """The engine has ended; is_replaced: and was ready, and another one is made."""
        ...


class LocalStatus:
    """The EngineStatus of the process that follows the engine itself."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.history = EngineHistory()

    def on_step(self, statistics: Statistics) -> None:
        self.statistics = statistics

    def on_end(self, *, is_replaced: bool) -> None:
        self.history.on_end(self.statistics, is_replaced=is_replaced)
        self.statistics = Statistics()
