"""Server-sent events: the one place that configures sse-starlette.

Every ending of a stream:
  exhausted      the iterator ends, the response ends
  client gone    sse-starlette cancels the iterator, whose cleanup runs at once
  slow reader    one send takes longer than `send_timeout`: cancelled like a client that is gone
  shutdown       the server drains first; what is left gets its error event from the iterator

Intentional: events do not pass through the library, which makes a cancel scope with a timer for
each. What it is given to iterate over sends them itself and yields nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from millstream.api.wire.request_log import CLIENT_STOPPED_READING, record_of
from millstream.api.wire.short_way import PieceWriter, never, piece_writer


def _ping(data: str | None) -> ServerSentEvent:
    if data is None:
        return ServerSentEvent(comment="ping", sep="\n")
    return ServerSentEvent(event="ping", data=data, sep="\n")


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
        ping: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """ping: the data of the event that is sent every `ping_seconds`; None sends a comment."""
        self._events = events
        self._on_end = on_end
        self._timeout = send_timeout
        self._send: Send | None = None
        self._write: PieceWriter = never
        super().__init__(
            self._deliver(),
            headers=headers,
            ping=ping_seconds,
            ping_message_factory=lambda: _ping(ping),
            sep="\n",
            send_timeout=send_timeout,
            # Intentional: the default of 0 cuts every stream the moment the server exits. Mounted
            # in an application, that moment comes when the engine has only begun to drain.
            shutdown_grace_period=math.inf,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send, self._write = send, piece_writer(scope)
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            if (record := record_of(scope)) is not None:
                record.ending = CLIENT_STOPPED_READING
        finally:
            self._on_end()

    async def _deliver(self) -> AsyncIterator[bytes]:
        """Sends all events; as an iterator it is empty. Raises SendTimeoutError."""
        assert self._send is not None, "iterated before it was called"
        send, write, events = self._send, self._write, self._events
        try:
            with anyio.CancelScope() as scope, self._watch(scope) as watch:
                async for event in events:
                    if write(event):
                        continue
                    watch.begin()
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                    watch.end()
        finally:
            # Suspended at its yield when a send was cut; what it holds is freed at once.
            with anyio.CancelScope(shield=True):
                await events.aclose()
        if scope.cancel_called:
            raise SendTimeoutError
        # The library iterates over this; the events have gone past it, so there is nothing left.
        nothing: tuple[bytes, ...] = ()
        for event in nothing:
            yield event

    def _watch(self, scope: anyio.CancelScope) -> SendWatch:
        return SendWatch(scope, timeout=self._timeout, loop=asyncio.get_running_loop())


class SendWatch:
    """Cancels `scope` when a send has taken longer than `timeout` seconds.

    A timer for each send would cost more than the send. This one looks, once per `timeout`, when
    the send under way began.
    """

    def __init__(
        self, scope: anyio.CancelScope, *, timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._scope = scope
        self._timeout = timeout
        self._loop = loop
        self._began: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> SendWatch:
        self._timer = self._loop.call_at(self._loop.time() + self._timeout, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._timer is not None, "entered before it is left"
        self._timer.cancel()

    def begin(self) -> None:
        self._began = self._loop.time()

    def end(self) -> None:
        self._began = None

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._began is None else self._began) + self._timeout
        if due <= now:
            self._scope.cancel()
        else:
            self._timer = self._loop.call_at(due, self._look)
