"""uvicorn's WebSocket protocol, with the bounds and manners of the HTTP one.

Rules: a handshake that is none is refused like any other request, as JSON; input that breaks the
protocol ends the connection with a close frame that arrives; neither a message in endless pieces
nor pings in masses cost memory; a client that stops reading is closed like one of HTTP. When the
server ends, clients are told that it restarts (1012), and have a moment to say that they heard it.
"""

from __future__ import annotations

import json
from asyncio import BaseTransport
from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response

from millstream.api.wire.closing import LINGER_SECONDS, BoundedTransport
from millstream.api.wire.error_bodies import error_body
from millstream.api.wire.request_log import log_unread
from millstream.errors import HeadersTooLarge, InvalidRequest
from millstream.metrics.http_metrics import HttpMetrics

_MAX_PIECES = 4096
"""Frames of one message. Empty ones count for nothing against its size."""
_SWITCHING = 101


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection, once its client has asked to speak WebSocket.

    metrics: counts those that are refused.
    """

    metrics = HttpMetrics()
    transport: BoundedTransport

    def connection_made(self, transport: BaseTransport) -> None:
        bounded = cast("BoundedTransport", transport)
        bounded.is_input_open = lambda: self.conn.close_rcvd is None
        super().connection_made(bounded)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.end()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self.transport.finish()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.unwatch_reader()

    def shutdown(self) -> None:
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
            return
        self.stop_keepalive()
        code = CloseCode.SERVICE_RESTART
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_lingering:
            self.transport.drop(data)
            return
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # The HTTP parser before this one takes more.
            is_large = not isinstance(self.conn.handshake_exc, InvalidMessage)
            self._refuse(
                HeadersTooLarge("the request's headers are too large")
                if is_large
                else InvalidRequest("this is no WebSocket handshake", code="invalid_http")
            )

    def handle_connect(self, event: Request) -> None:
        answer = self.conn.accept(event)
        if answer.status_code == _SWITCHING:
            super().handle_connect(event)
            return
        error = InvalidRequest(
            f"this is no WebSocket handshake: {self.conn.handshake_exc}", code="invalid_http"
        )
        error.status = answer.status_code
        self.handshake_initiated = True
        self._refuse(error)

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:  # frames that came before the handshake was answered
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self._refuse(InvalidRequest("these are no WebSocket frames", code="invalid_http"))
        else:
            super().handle_parser_exception()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < _MAX_PIECES:
            super().handle_cont(event)
        else:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "a message has too many frames")

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "a text frame is not UTF-8")
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        answer = b"".join(self.conn.data_to_send())
        # RFC 6455, 5.5.3: of many pings, only the last one needs an answer.
        if self.writable.is_set():
            self.transport.write(answer)

    def _fail(self, code: CloseCode, reason: str) -> None:
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _refuse(self, error: InvalidRequest) -> None:
        self.handshake_complete = self.close_sent = True
        log_unread(error, self.metrics)
        body = json.dumps(error_body(error)).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Sec-WebSocket-Version": "13",
        }
        self.transport.write(Response(error.status, "", Headers(headers), body).serialize())
        self.transport.linger()
