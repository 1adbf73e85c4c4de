"""Which pages may open a WebSocket: the protection against cross-site hijacking.

A browser lets any page open a WebSocket to any server, sends what it knows of it along (cookies,
passwords, the position in a private network), and lets the page read the answers: CORS does not
apply. What a page cannot choose is the `Origin` header.

Rules: pages of this server and those of --allowed-origins may; what sends no `Origin` is no page.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.wire.error_bodies import error_response
from millstream.api.wire.request_log import foreign_origin, shown
from millstream.errors import OriginNotAllowed


class CheckOrigin:
    """Answers 403 for WebSockets of other pages. origins: those that may; `*` is all."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = foreign_origin(dict(scope["headers"])) if scope["type"] == "websocket" else None
        if origin is None or not self._origins.isdisjoint(("*", origin)):
            await self._app(scope, receive, send)
        else:
            await error_response(_refusal(origin))(scope, receive, send)


def _refusal(origin: str) -> OriginNotAllowed:
    return OriginNotAllowed(
        f"pages of {shown(origin)} may not use this server; --allowed-origins names those that may"
    )
