"""Requests that another HTTP worker of this server has forwarded, as the one that answers has them.

They come over a Unix socket that only workers of this server can reach. Every connection is greeted
with one byte, because a connection to a worker that is gone succeeds as well: it waits in the
kernel until the next worker of that number accepts it.

Rules: what the first worker knows of the request (who the client is, by which scheme it came) is in
a header that is read on this socket only; of a client the first worker passes none on. What is
forwarded is answered here, whatever it names. It is logged and counted where its client is, which
is why the answer tells the first worker, in a header again, what went wrong.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from millstream.api.wire.framing import Connection
from millstream.api.wire.protocol import Protocol
from millstream.errors import MillstreamError

GREETING = b"\n"
"""What a worker sends first on a connection that it serves."""
CLIENT_HEADER = b"x-millstream-client"
"""What the first worker knows of a request."""
FAILURE_HEADER = b"x-millstream-failure"
"""What the answering worker says of an error that it answers with."""

_STATE = "millstream_is_forwarded"
_HEADER_SLACK = 4096
"""Bytes by which a forwarded request may exceed what a client's headers may have."""


def is_forwarded(scope: Scope) -> bool:
    """Whether another worker has forwarded the request."""
    return _STATE in scope.get("state", {})


def client_header(scope: Scope) -> bytes:
    """The value of CLIENT_HEADER for a request of a client."""
    return json.dumps({"client": scope["client"], "scheme": scope["scheme"]}).encode()


def failure_header(error: MillstreamError) -> str:
    """The value of FAILURE_HEADER for an error: what lines of the log have of it."""
    return json.dumps({"code": error.code, "param": error.param, "flag": error.flag})


def read_failure(value: bytes) -> MillstreamError:
    """The error that a FAILURE_HEADER tells of, without its message."""
    return MillstreamError("", **json.loads(value))


class ForwardedRequests:
    """Puts what the first worker knows of a request into its scope, and marks it as forwarded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = json.loads(dict(scope["headers"])[CLIENT_HEADER])
        client = said["client"]
        scope = {
            **scope,
            "client": None if client is None else tuple(client),
            "scheme": said["scheme"],
            "headers": [header for header in scope["headers"] if header[0] != CLIENT_HEADER],
            "state": {**scope["state"], _STATE: True},
        }
        await self._app(scope, receive, send)


class ForwardedProtocol(Protocol):
    """One connection of another worker, for one request."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.app = ForwardedRequests(self.app)
        self.ws_protocol_class = None
        limit = config.h11_max_incomplete_event_size
        if limit is not None:
            self.conn = Connection(h11.SERVER, limit + _HEADER_SLACK)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(GREETING)
        super().connection_made(transport)
