"""The routes of chats, and what each takes and answers."""

from __future__ import annotations

from millstream.api.chats.bodies import ChatChanges, MessageBody, NewChat, RegenerateBody
from millstream.api.chats.chat_file import ChatFile
from millstream.api.chats.endpoints import Chats
from millstream.api.chats.sending import ChatMessages
from millstream.api.chats.shapes import (
    ChatList,
    ChatMessageList,
    ChatObject,
    DeletedChat,
)
from millstream.api.chats.transfers import ChatTransfers
from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, DescribedRoute, Operation
from millstream.api.openai.responses.event_shapes import WaitingEvent
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.openai.responses.shapes import ResponseObject

_ALL = "/v1/chats"
_ONE = "/v1/chats/{id}"
_MESSAGES = f"{_ONE}/messages"
_GOES_ON = "The answer is a response, which goes on when its reader leaves: GET /v1/responses/{id} "
_GOES_ON += "has it, and its events. With `stream`, events also say its place in the queue."

LIST_CHATS = Operation(
    path=_ALL,
    method="GET",
    summary="The visitor's chats, the newest first",
    description="`query`: words that all must be in the title or in what was said. `limit`, "
    "`after`: a page of them.",
    answers={200: {JSON: ChatList}},
    errors=(400, 404, 503),
)
CREATE_CHAT = Operation(
    path=_ALL,
    method="POST",
    summary="A new chat, with a title and settings or without",
    request=NewChat,
    answers={200: {JSON: ChatObject}},
    errors=(404, 503),
)
RETRIEVE_CHAT = Operation(
    path=_ONE,
    method="GET",
    summary="A chat, with the messages of its current branch",
    description="The id `current`, here and below, is the visitor's chat in which something was "
    "last said; a new one, if there is none.",
    answers={200: {JSON: ChatObject}},
    errors=(400, 404, 503),
)
UPDATE_CHAT = Operation(
    path=_ONE,
    method="POST",
    summary="Gives a chat another title, other settings, or another current branch",
    request=ChatChanges,
    answers={200: {JSON: ChatObject}},
    errors=(404, 503),
)
DELETE_CHAT = Operation(
    path=_ONE,
    method="DELETE",
    summary="Deletes a chat, with all that was said in it",
    answers={200: {JSON: DeletedChat}},
    errors=(400, 404, 503),
)
CLEAR_CHAT = Operation(
    path=f"{_ONE}/clear",
    method="POST",
    summary="Deletes what was said in a chat; its settings and its title stay",
    answers={200: {JSON: ChatObject}},
    errors=(400, 404, 503),
)
LIST_MESSAGES = Operation(
    path=_MESSAGES,
    method="GET",
    summary="The messages of the current branch, a page at a time",
    answers={200: {JSON: ChatMessageList}},
    errors=(400, 404, 503),
)
SEND_MESSAGE = Operation(
    path=_MESSAGES,
    method="POST",
    summary="Says something in a chat, and answers it",
    description=_GOES_ON,
    request=MessageBody,
    answers={200: {JSON: ResponseObject, EVENTS: WaitingEvent}},
    errors=(404, 429, 499, 503, 504),
)
REGENERATE = Operation(
    path=f"{_ONE}/regenerate",
    method="POST",
    summary="Answers a question of a chat once more; the answers before stay",
    description=_GOES_ON,
    request=RegenerateBody,
    answers={200: {JSON: ResponseObject, EVENTS: WaitingEvent}},
    errors=(404, 429, 499, 503, 504),
)
EXPORT_CHAT = Operation(
    path=f"{_ONE}/export",
    method="GET",
    summary="The whole chat with all its versions and branches, as a document to keep",
    description="An answer that is being made has what was said so far; its `status` tells.",
    answers={200: {JSON: ChatFile}},
    errors=(400, 404, 503),
)
IMPORT_CHAT = Operation(
    path=f"{_ALL}/import",
    method="POST",
    summary="A new chat of the visitor's, made of an exported one",
    description="It may be ten times as long as another body.",
    request=ChatFile,
    answers={200: {JSON: ChatObject}},
    errors=(404, 503),
)
CONTINUE = Operation(
    path=f"{_ONE}/continue",
    method="POST",
    summary="Goes on with an answer that was cut; the one that was cut stays",
    description=f"The new answer begins with what the other has said. {_GOES_ON}",
    request=RegenerateBody,
    answers={200: {JSON: ResponseObject, EVENTS: WaitingEvent}},
    errors=(404, 429, 499, 503, 504),
)


def chat_routes(context: ServerContext, maker: ResponseMaker) -> list[DescribedRoute]:
    """All of them."""
    chats, messages = Chats(context), ChatMessages(context, maker)
    transfers = ChatTransfers(context)
    return [
        IMPORT_CHAT.route(transfers.import_chat),
        LIST_CHATS.route(chats.list_chats),
        CREATE_CHAT.route(chats.create),
        RETRIEVE_CHAT.route(chats.retrieve),
        UPDATE_CHAT.route(chats.update),
        DELETE_CHAT.route(chats.delete),
        CLEAR_CHAT.route(chats.clear),
        LIST_MESSAGES.route(chats.messages),
        SEND_MESSAGE.route(messages.send),
        REGENERATE.route(messages.regenerate),
        CONTINUE.route(messages.go_on),
        EXPORT_CHAT.route(transfers.export),
    ]
