"""What an engine's client has its engine by, and what it hears of it."""

from __future__ import annotations

from typing import Protocol

from millstream.runtime.messages import FromEngine, ToEngine


class Listener(Protocol):
    """Who hears what becomes of the engine. Called on the event loop; must not block."""

    @property
    def is_waiting(self) -> bool:
        """Whether anybody waits for the engine to compute something."""
        ...

    def on_message(self, message: FromEngine) -> None: ...

    def on_end(self, how: str, *, is_final: bool) -> None:
        """The engine is gone; unless `is_final`, another one is being started."""
        ...


class EngineLink(Protocol):
    """A way to one engine after the other: a Supervisor, or what asks one in another process."""

    @property
    def silence(self) -> float | None:
        """Seconds in which somebody waited and the engine said nothing; None if nobody waits."""
        ...

    def start(self, listener: Listener) -> None:
        """Begins, and tells the listener from now on."""
        ...

    def post(self, message: ToEngine) -> None:
        """Sends to the engine; without one, nothing: whoever waits has been or will be told."""
        ...

    def expect_news(self) -> None:
        """Notes that somebody begins to wait."""
        ...

    def start_no_more(self) -> None:
        """Makes this engine the last one."""
        ...

    async def stop(self) -> None:
        """Ends the engine, or lets it go."""
        ...
