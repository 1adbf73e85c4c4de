"""WebSockets as their handlers see them, and which path has one.

Rules: a path without one is refused like any unknown route; whatever a handler raises ends its
connection and nobody else's, and its client gets no internals.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.wire.error_bodies import error_response
from millstream.api.wire.request_log import record_of
from millstream.errors import MillstreamError, NotFound

log = logging.getLogger(__name__)

_FAILED = 1011


class SocketGone(Exception):
    """The client has left, or was left."""


class Socket:
    """One WebSocket of a client. For one reader at a time, and any number of writers.

    Until it is accepted, a handler may raise MillstreamError, which refuses it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.is_accepted = False
        self._receive = receive
        self._send = send

    async def accept(self, *, protocols: tuple[str, ...]) -> None:
        """Takes the connection. protocols: the subprotocols that are spoken here."""
        message = await self._receive()
        assert message["type"] == "websocket.connect", message
        offered = self.scope.get("subprotocols", ())
        chosen = next((name for name in offered if name in protocols), None)
        self.is_accepted = True
        await self._pass({"type": "websocket.accept", "subprotocol": chosen, "headers": []})

    async def receive(self) -> str | bytes:
        """The next message. Raises SocketGone."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise SocketGone
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, text: str) -> None:
        """Sends a message, as fast as the client reads. Raises SocketGone."""
        await self._pass({"type": "websocket.send", "text": text})

    async def close(self, code: int, *, reason: str = "") -> None:
        """Says that it is over. Does not raise."""
        with suppress(SocketGone):
            await self._pass({"type": "websocket.close", "code": code, "reason": reason})

    async def _pass(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # the latter after the last word was said
            raise SocketGone from error


SocketHandler = Callable[[Socket], Coroutine[Any, Any, None]]


class SocketRoutes:
    """Leads WebSockets to their handlers, and everything else to the application."""

    def __init__(
        self, app: ASGIApp, *, handlers: Mapping[str, SocketHandler], root_path: str
    ) -> None:
        self._app = app
        self._handlers = {root_path + path: (path, each) for path, each in handlers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        route, handler = self._handlers.get(path, (None, None))
        if route is None or handler is None:
            error = NotFound(f"there is no WebSocket {path}")
            await error_response(error)(scope, receive, send)
            return
        if (record := record_of(scope)) is not None:
            record.route = route
        socket = Socket(scope, receive, send)
        try:
            await handler(socket)
        except SocketGone:
            pass
        except MillstreamError as error:
            assert not socket.is_accepted, "said by then in the words of its API"
            await error_response(error)(scope, receive, send)
        except Exception:
            log.exception("a WebSocket has failed")
            await socket.close(_FAILED)
