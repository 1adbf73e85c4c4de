"""Server-sent events: the one place that configures sse-starlette.

Every ending of a stream:
  exhausted      the iterator ends, the response ends
  client gone    sse-starlette cancels the iterator; `aclosing` runs its cleanup at once
  slow reader    one send takes longer than `send_timeout`: cancelled like a client that is gone
  shutdown       the server drains first; what is left gets its error event from the iterator
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 5.0


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")


class EventStream(EventSourceResponse):
    """Sends events that are already framed (`data: ...` and a blank line, as bytes).

    on_end is called however the response ends, also when it ends before the first event was asked
    for: a generator that was never started runs no cleanup of its own.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        on_end: Callable[[], None],
        ping_seconds: float,
        send_timeout: float,
    ) -> None:
        self._on_end = on_end
        super().__init__(
            _closing(events),
            ping=ping_seconds,
            ping_message_factory=_ping,
            sep="\n",
            send_timeout=send_timeout,
            # Intentional: the default of 0 cuts every stream the moment the server exits.
            shutdown_grace_period=_SHUTDOWN_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("a client stopped reading its stream; closed it")
        finally:
            self._on_end()


async def _closing(events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(events):
        async for event in events:
            yield event
