"""What a route takes and answers, said beside its handler; the API document is made of it.

Rule: every route of the application is a DescribedRoute, so nothing is served undescribed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from millstream.api.wire.error_bodies import ErrorBody
from millstream.api.wire.request_log import record_of
from millstream.api.wire.sockets import SocketHandler

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

JSON = "application/json"
EVENTS = "text/event-stream"
HTML = "text/html"
TEXT = "text/plain"
SCRIPT = "text/javascript"
CSS = "text/css"
SVG = "image/svg+xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    request: the type of the JSON body. answers: for each status of success, media type to the type
    of the body (of the data of one event, for a stream; None where JSON has no say; nothing at all
    for an answer without a body). errors: other
    statuses with the error body; 401, 403, 404 of the route and those of any body come by
    themselves. failure: the type of the error body. has_end_mark: whether a stream ends with
    `[DONE]`, and its events have no names. is_open: it needs no API key, and answers whatever the
    server is called. is_probe: machines ask for it every few seconds.
    """

    path: str
    method: str
    summary: str
    answers: Mapping[int, Mapping[str, Any]]
    description: str = ""
    request: Any = None
    errors: tuple[int, ...] = field(default=())
    failure: Any = ErrorBody
    has_end_mark: bool = True
    is_open: bool = False
    is_probe: bool = False

    @property
    def asks_for_answer(self) -> bool:
        """Whether it takes a place, and may find none free: 429, or 529 in the Messages API."""
        return 429 in self.errors or 529 in self.errors

    def route(self, handler: Handler, *, socket: SocketHandler | None = None) -> DescribedRoute:
        """socket: what serves WebSockets of the same path, if there are any."""
        return DescribedRoute(self, handler, socket=socket)


class DescribedRoute(Route):
    """A route that knows its description, and what serves the WebSockets of its path."""

    def __init__(
        self, operation: Operation, handler: Handler, *, socket: SocketHandler | None = None
    ) -> None:
        super().__init__(operation.path, handler, methods=[operation.method])
        self.operation = operation
        self.socket = socket

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, whose record is told which route it took."""
        if (record := record_of(scope)) is not None:
            record.route = self.path
            record.is_for_answer = self.operation.asks_for_answer
        await super().handle(scope, receive, send)
