"""uvicorn's HTTP/1.1 protocol, made polite to clients that send what it cannot parse.

Rules: the refusal is a JSON error like any other, and it arrives. A socket closed over unread
input answers with a reset, which can overtake the refusal; so what still comes is read and
dropped until the client is done, for a bounded time. Headers that trickle in are cut off.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from millstream.api.wire.error_bodies import error_body
from millstream.errors import (
    HeadersTooLarge,
    InvalidRequest,
    MillstreamError,
    Overloaded,
    RequestTimeout,
)

LINGER_SECONDS = 2.0
HEADER_SECONDS = 30.0


class Connection(h11.Connection):
    """h11's server side, with a short way for the pieces of a streamed body.

    Between the headers of a chunked response and its end, h11's state machine allows data and
    stays as it is; to ask it costs more than to frame a chunk (RFC 9112, section 7.1).
    """

    _is_chunked = False

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        if type(event) is h11.Data and self._is_chunked and self.our_state is h11.SEND_BODY:
            data = event.data
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        output = super().send(event)
        if type(event) is h11.Response:
            assert output is not None, "a response has headers"
            self._is_chunked = b"\r\nTransfer-Encoding: chunked\r\n" in output
        return output


class Protocol(H11Protocol):
    """One connection. See the module's rules for what differs from uvicorn's."""

    _is_refused = False
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        limit = config.h11_max_incomplete_event_size
        self.conn = Connection(h11.SERVER) if limit is None else Connection(h11.SERVER, limit)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) >= limit:
            # Not counted, and with no time to linger: it would take what is set aside.
            self.connections.discard(self)
            self._refuse(Overloaded("the server has too many connections"))
            transport.close()
            return
        self._timer = self.loop.call_later(HEADER_SECONDS, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)
            self._watch_headers()

    def _watch_headers(self) -> None:
        if self._is_refused:
            return
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._headers_late)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when h11 refuses the input."""
        cause = sys.exc_info()[1]
        if isinstance(cause, h11.RemoteProtocolError) and cause.error_status_hint == 431:
            self._refuse(HeadersTooLarge("the request's headers are too large"))
        else:
            self._refuse(InvalidRequest("this is not valid HTTP/1.1", code="invalid_http"))

    def _headers_late(self) -> None:
        self._timer = None
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(RequestTimeout("the request's headers did not arrive in time"))

    def _refuse(self, error: MillstreamError) -> None:
        self._is_refused = True
        self._stop_timer()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            # An answer is under way on this connection; nothing readable can be added to it.
            self.transport.close()
            return
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
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def eof_received(self) -> None:
        if self._is_refused:
            self.transport.close()
        super().eof_received()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
