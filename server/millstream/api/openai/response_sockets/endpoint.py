"""The WebSocket at /v1/responses."""

from __future__ import annotations

from millstream.api.context import ServerContext
from millstream.api.openai.response_sockets.connection import PROTOCOLS, ResponseConnection
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.wire.sockets import Socket, SocketHandler


def response_socket(context: ServerContext, maker: ResponseMaker) -> SocketHandler:
    """The handler of its connections."""

    async def serve(socket: Socket) -> None:
        connection = ResponseConnection(socket, context=context, maker=maker)
        await socket.accept(protocols=PROTOCOLS)
        await connection.run()

    return serve
