"""Server-sent events as a response.

Every ending of a stream:
  exhausted      the iterator ends, the response ends
  client gone    the iterator is cancelled, and its cleanup runs at once
  slow reader    one send takes longer than `send_timeout`: cancelled like a client that is gone
  shutdown       the server drains first; what is left gets its error event from the iterator

What a stream costs beside its events, every short answer pays. So there is one task beside the
request's own, which hears that the client leaves, and one cancel scope; pings, and the watch over a
send, are timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millstream.api.wire.disconnect import until_gone
from millstream.api.wire.pings import Pings
from millstream.api.wire.request_log import CLIENT_STOPPED_READING, record_of
from millstream.api.wire.short_way import PieceWriter, piece_writer

_HEADERS = {"Cache-Control": "no-store", "Connection": "keep-alive", "X-Accel-Buffering": "no"}


class EventStream(Response):
    """Sends events that are already framed (`data: ...` and a blank line, as bytes).

    on_end is called however the response ends, also when it ends before the first event was asked
    for: a generator that was never started runs no cleanup of its own.
    """

    media_type = "text/event-stream"

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
        self._ping = b": ping\n\n" if ping is None else f"event: ping\ndata: {ping}\n\n".encode()
        self._ping_seconds = ping_seconds
        self.status_code, self.background = 200, None
        self.init_headers({**(headers or {}), **_HEADERS})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._respond(scope, receive, send)
        finally:
            self._on_end()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends everything. Raises what the iterator raises."""
        loop, write = asyncio.get_running_loop(), piece_writer(scope)
        leaving = loop.create_task(until_gone(receive))
        try:
            with anyio.CancelScope() as going:
                leaving.add_done_callback(lambda _: going.cancel())
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                if scope["method"] != "HEAD":
                    pings = Pings(self._ping, write=write, send=send, seconds=self._ping_seconds)
                    with pings, SendWatch(going, timeout=self._timeout, loop=loop) as watch:
                        await self._deliver(send, write, watch)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            if leaving.done():
                leaving.result()
            elif going.cancel_called and (record := record_of(scope)) is not None:
                record.ending = CLIENT_STOPPED_READING
        finally:
            leaving.cancel()

    async def _deliver(self, send: Send, write: PieceWriter, watch: SendWatch) -> None:
        """Sends all events."""
        try:
            async for event in self._events:
                if write(event):
                    continue
                watch.begin()
                await send({"type": "http.response.body", "body": event, "more_body": True})
                watch.end()
        finally:
            # Suspended at its yield when a send was cut; what it holds is freed at once.
            with anyio.CancelScope(shield=True):
                await self._events.aclose()


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
