"""The WebSocket at /ws, and what its path says to those who speak HTTP."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.context import ServerContext
from millstream.api.described.route import Operation
from millstream.api.openai.conversations.creation import new_conversation
from millstream.api.openai.responses.history import not_found
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.socket_chat.client_frames import NEW
from millstream.api.socket_chat.connection import ChatConnection
from millstream.api.wire.resuming import owner_of
from millstream.api.wire.sockets import Socket, SocketHandler
from millstream.errors import InvalidRequest, UpgradeRequired

PROTOCOLS = ("chat",)
"""Subprotocols that a page may offer beside its key, since a browser wants one to be chosen."""

_CONVERSATION = "conversation"

CHAT_SOCKET = Operation(
    path="/ws",
    method="GET",
    summary="Chat over a WebSocket, many messages at once",
    description='Frames are JSON: `{"id", "text"}` asks, frames with the same id answer. '
    "With `?conversation=ID`, or `new`, messages are said in a conversation. What is no WebSocket "
    "gets 426.",
    answers={},
    errors=(400, 404, 426, 503),
)


async def upgrade_required(http: HttpRequest) -> Response:
    """The handler of what is no WebSocket."""
    raise UpgradeRequired("this path is a WebSocket; connect to it with ws:// or wss://")


def chat_socket(context: ServerContext, maker: ResponseMaker) -> SocketHandler:
    """The handler of its connections."""

    async def serve(socket: Socket) -> None:
        conversation = await _conversation(socket, context)
        connection = ChatConnection(socket, context=context, maker=maker, conversation=conversation)
        await socket.accept(protocols=PROTOCOLS)
        await connection.run()

    return serve


async def _conversation(socket: Socket, context: ServerContext) -> str | None:
    """The conversation that the client's URL names, or begins. Raises MillstreamError."""
    http = HTTPConnection(socket.scope)
    asked = http.query_params.multi_items()
    if not asked:
        return None
    for name, _ in asked:
        if name != _CONVERSATION or len(asked) > 1:
            raise InvalidRequest(f"{name}: only {_CONVERSATION}=..., once", param=name)
    store, owner, identifier = context.store, owner_of(http), asked[0][1]
    if store is None:
        raise InvalidRequest(
            f"{_CONVERSATION}: this server keeps nothing (--store off)",
            param=_CONVERSATION,
            code="store_off",
        )
    if identifier == NEW:
        conversation = new_conversation(owner)
        await store.create_conversation(conversation, [])
        return conversation.id
    if await store.conversation(identifier, owner=owner) is None:
        raise not_found(_CONVERSATION, identifier, param=_CONVERSATION)
    return identifier
