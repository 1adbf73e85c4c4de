"""uvicorn's HTTP/1.1 protocol, made polite to clients that send what it cannot parse.

Rules: the refusal is a JSON error like any other, and it arrives. Every phase of a connection has
an end: headers that trickle in are cut off here, bodies where they are read, answers that nobody
reads and requests that go on after their answer by the transport.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

import h11
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from millstream.api.wire.closing import BoundedTransport, UnreadAnswers
from millstream.api.wire.error_bodies import error_body
from millstream.api.wire.framing import Connection, Refused, framed
from millstream.api.wire.request_log import log_unread, record_of
from millstream.api.wire.short_way import WRITER_STATE
from millstream.errors import (
    HeadersTooLarge,
    InvalidRequest,
    MillstreamError,
    Overloaded,
    RequestTimeout,
)
from millstream.metrics.http_metrics import HttpMetrics

HEADER_SECONDS = 30.0


class Protocol(H11Protocol):
    """One connection. See the module's rules for what differs from uvicorn's.

    send_timeout: seconds in which a client must read something of what waits for it.
    max_connections: how many there may be at a time; None for any number. unread: the large answers
    that wait on any of them. metrics: counts those that are refused.
    """

    send_timeout = 60.0
    unread = UnreadAnswers()
    max_connections: int | None = None
    metrics = HttpMetrics()
    _timer: asyncio.TimerHandle | None = None
    transport: BoundedTransport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        app_state = {**app_state, WRITER_STATE: self.write_piece}
        super().__init__(config, server_state, app_state, _loop)
        limit = config.h11_max_incomplete_event_size
        self.conn: Connection = (
            Connection(h11.SERVER) if limit is None else Connection(h11.SERVER, limit)
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        bounded = BoundedTransport(
            transport,
            loop=self.loop,
            is_input_open=lambda: self.conn.is_request_open,
            send_timeout=self.send_timeout,
            unread=self.unread,
        )
        super().connection_made(bounded)
        if self.max_connections is not None and len(self.connections) > self.max_connections:
            # Not counted, and with no time to linger: it would take what is set aside.
            self.connections.discard(self)
            self._refuse(Overloaded("the server has too many connections"))
            transport.close()
            return
        self._timer = self.loop.call_later(HEADER_SECONDS, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.transport.end()
        super().connection_lost(exc)

    def write_piece(self, piece: bytes) -> bool:
        """Sends a piece of the body that is under way. See short_way.py."""
        if self.flow.write_paused or self.cycle.disconnected or not self.conn.is_in_chunks:
            return False
        self.transport.write(framed(piece))
        return True

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leaves the connection to another protocol, which has no use for this one."""
        del self.app_state[WRITER_STATE]
        super().handle_websocket_upgrade(event)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_lingering:
            self.transport.drop(data)
        else:
            super().data_received(data)
            self._watch_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.unwatch_reader()

    def _watch_headers(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._headers_late)

    def _should_upgrade(self) -> bool:
        """Whether another protocol takes over. What asks for one that is not spoken here, or may
        not ask, is answered as it is (RFC 9110, 7.8)."""
        is_socket = self.ws_protocol_class is not None and self._get_upgrade() == b"websocket"
        return is_socket and self.scope["method"] == "GET"

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when h11 refuses the input."""
        cause = sys.exc_info()[1]
        hint = getattr(cause, "error_status_hint", None)
        if hint == HeadersTooLarge.status:
            self._refuse(HeadersTooLarge("the request's headers are too large"))
            return
        reason = f": {cause}" if isinstance(cause, Refused) else ""
        error = InvalidRequest(f"this is not valid HTTP/1.1{reason}", code="invalid_http")
        # Whatever else h11 knows a status for: a version or a coding that is not spoken here.
        error.status = hint or error.status
        self._refuse(error)

    def _headers_late(self) -> None:
        self._timer = None
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(RequestTimeout("the request's headers did not arrive in time"))

    def _refuse(self, error: MillstreamError) -> None:
        """Says why, if nothing was said yet, and closes."""
        record = None
        if self.cycle is not None and not self.cycle.response_complete:
            record = record_of(cast("Scope", self.cycle.scope))
        if record is None:
            log_unread(error, self.metrics)
        else:
            record.break_off(error)
        self._stop_timer()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error_body(error)).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            parts = (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever reads the body or prepares an answer has nobody to do it for.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.linger()

    def eof_received(self) -> None:
        self.transport.finish()
        super().eof_received()

    def shutdown(self) -> None:
        self.transport.finish()
        super().shutdown()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
