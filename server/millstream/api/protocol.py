"""uvicorn's HTTP/1.1 protocol, made polite to clients that send what it cannot parse.

Rules: the refusal is a JSON error like any other, and it arrives. A socket closed over unread
input answers with a reset, which can overtake the refusal; so what still comes is read and
dropped until the client is done, for a bounded time. Headers that trickle in are cut off.
"""

from __future__ import annotations

import asyncio
import json
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from millstream.api.errors import error_body
from millstream.errors import HeadersTooLarge, InvalidRequest, MillstreamError, RequestTimeout

LINGER_SECONDS = 2.0
HEADER_SECONDS = 30.0


class Protocol(H11Protocol):
    """One connection. See the module's rules for what differs from uvicorn's."""

    _is_refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
