"""Who holds a place, who waits in the engine for their turn, and how many prompt tokens wait.

Rules: it is decided at once, never by waiting. A request holds its place from `take()` to
`give_back()`; it waits for its turn from `send()` to `on_run()`, its prompt to `on_news()`, and
both to its end at the latest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from millstream.core.request import Request
from millstream.runtime.queue_places import QueuePlaces
from millstream.runtime.waiting import WaitingPrompts


class Admission(Protocol):
    """limit: places, running and waiting. max_waiting_tokens: of prompts, or None."""

    limit: int
    max_waiting_tokens: int | None

    @property
    def num_taken(self) -> int:
        """Places that are held."""
        ...

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens of the prompts that wait."""
        ...

    def take(self, request_ids: Sequence[int]) -> bool:
        """Takes a place for each of them, or for none: then it returns False."""
        ...

    def send(self, request: Request) -> None:
        """Notes that the engine is sent a request. Raises Overloaded if too many tokens wait."""
        ...

    def on_run(self, request_id: int) -> None:
        """Notes that a request has begun to run."""
        ...

    def on_news(self, request_id: int) -> None:
        """Notes that the prompt of a request is computed. For each token: cheap."""
        ...

    def on_end(self, request_id: int) -> None:
        """Notes that a request is over; it may have its place still."""
        ...

    def give_back(self, request_id: int) -> None:
        """Makes the place of a request free; what it waited for is over, too."""
        ...

    def position(self, request_id: int) -> int | None:
        """At which place a request waits for its turn, 1 for the next one; None if it does not."""
        ...


class LocalAdmission:
    """The Admission of an engine that one process has for itself."""

    def __init__(self, *, limit: int, max_waiting_tokens: int | None) -> None:
        self.limit = limit
        self.max_waiting_tokens = max_waiting_tokens
        self._taken: set[int] = set()
        self._waiting = WaitingPrompts(limit=max_waiting_tokens)
        self._queue = QueuePlaces()
        self.on_news = self._waiting.remove
        self.on_run = self._queue.leave
        self.position = self._queue.position

    @property
    def num_taken(self) -> int:
        return len(self._taken)

    @property
    def num_waiting_tokens(self) -> int:
        return self._waiting.num_tokens

    def take(self, request_ids: Sequence[int]) -> bool:
        if len(self._taken) + len(request_ids) > self.limit:
            return False
        self._taken.update(request_ids)
        return True

    def send(self, request: Request) -> None:
        self._waiting.add(request)
        self._queue.enter(request.id)

    def on_end(self, request_id: int) -> None:
        self._waiting.remove(request_id)
        self._queue.leave(request_id)

    def give_back(self, request_id: int) -> None:
        self.on_end(request_id)
        self._taken.discard(request_id)
