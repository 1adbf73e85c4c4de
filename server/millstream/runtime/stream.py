"""One accepted request as its caller sees it: batches of events, then one ending.

Rules: a stream ends exactly once, by a finish event, a failure or `close()`; nothing follows.
Closing is cancelling. A reader that falls behind gets everything it missed in one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from millstream.core.request import Request, TokenEvent
from millstream.errors import MillstreamError


class TokenStream:
    """Async iterator over batches of TokenEvents; holds one place of the admission limit.

    Created by `EngineClient.open()`. Belongs to one event loop. Must be closed.
    """

    def __init__(
        self,
        request_id: int,
        *,
        send: Callable[[Request], None],
        forget: Callable[[TokenStream], None],
    ) -> None:
        self.id = request_id
        self._send = send
        self._forget = forget
        self._events: list[TokenEvent] = []
        self._failure: MillstreamError | None = None
        self._news = asyncio.Event()
        self.is_started = False
        self.is_ended = False

    def start(self, request: Request) -> None:
        """Hands the request to the engine. Raises what admission raises (see EngineClient)."""
        assert not self.is_started, "start() once"
        if self._failure is not None:
            raise self._failure
        self._send(request)
        self.is_started = True

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> list[TokenEvent]:
        """The next events, at least one. Raises the failure that ended the request, if one did."""
        while not self._events:
            if self._failure is not None:
                raise self._failure
            if self.is_ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Gives the place back and cancels the request if it has not ended. Idempotent."""
        self._forget(self)

    def push(self, event: TokenEvent) -> None:
        """For the client only: events of this request have arrived."""
        if self.is_ended:
            return
        self._events.append(event)
        self.is_ended = event.finish_reason is not None
        self._news.set()

    def fail(self, error: MillstreamError) -> None:
        """For the client only: this request ends with `error` after what was delivered."""
        if not self.is_ended:
            self.is_ended = True
            self._failure = error
            self._news.set()
