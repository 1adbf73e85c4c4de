"""The WebSocket at /ws, and what its path says to those who speak HTTP."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.context import ServerContext
from millstream.api.described.route import Operation
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.socket_chat.client_frames import PLACES, SaidIn
from millstream.api.socket_chat.connection import ChatConnection
from millstream.api.socket_chat.places import SocketPlaces
from millstream.api.wire.resuming import owners_of
from millstream.api.wire.sockets import Socket, SocketHandler
from millstream.errors import InvalidRequest, UpgradeRequired

PROTOCOLS = ("chat",)
"""Subprotocols that a page may offer beside its key, since a browser wants one to be chosen."""

CHAT_SOCKET = Operation(
    path="/ws",
    method="GET",
    summary="Chat over a WebSocket, many messages at once",
    description='Frames are JSON: `{"id", "text"}` asks, frames with the same id answer. '
    "With `?conversation=ID` or `?chat=ID`, or `new`, messages are said in one. What is no "
    "WebSocket gets 426.",
    answers={},
    errors=(400, 404, 426, 503),
)


async def upgrade_required(http: HttpRequest) -> Response:
    """The handler of what is no WebSocket."""
    raise UpgradeRequired("this path is a WebSocket; connect to it with ws:// or wss://")


def chat_socket(context: ServerContext, maker: ResponseMaker) -> SocketHandler:
    """The handler of its connections."""

    async def serve(socket: Socket) -> None:
        http = HTTPConnection(socket.scope)
        places = SocketPlaces(context.store, owners_of(http))
        asked = _asked(http)
        said_in = None if asked is None else await places.begun(asked)
        connection = ChatConnection(
            socket, context=context, maker=maker, places=places, said_in=said_in
        )
        await socket.accept(protocols=PROTOCOLS)
        await connection.run()

    return serve


def _asked(http: HTTPConnection) -> SaidIn | None:
    """What the client's URL names or begins. Raises InvalidRequest."""
    asked = http.query_params.multi_items()
    for name, _ in asked:
        if name not in PLACES or len(asked) > 1:
            raise InvalidRequest(f"{name}: only one of {' and '.join(PLACES)}, once", param=name)
    return SaidIn(*asked[0]) if asked else None
