"""Messages of a chat: a response for each, which goes on when its reader leaves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.chats.bodies import (
    Wish,
    chat_request,
    parse_message,
    parse_regeneration,
    renamed,
)
from millstream.api.chats.finding import ChatFinder, last_said, marked
from millstream.api.context import ServerContext
from millstream.api.openai.responses.endpoint import Responses
from millstream.api.openai.responses.history import not_found
from millstream.api.openai.responses.maker import Asker, ResponseMaker
from millstream.errors import InvalidRequest
from millstream.intake.responses.request import ResponseRequest
from millstream.store.records import StoredChat

T = TypeVar("T")


class ChatMessages:
    """The endpoints that let the model answer. Hold no state of their own."""

    def __init__(self, context: ServerContext, maker: ResponseMaker) -> None:
        self._context = context
        self._finder = ChatFinder(context)
        self._responses = Responses(context, maker)

    async def send(self, http: HttpRequest) -> Response:
        wish = await self._context.read_body(http, parse_message)
        chat = await self._finder.find(http)
        parent = wish.place if wish.is_placed else await last_said(self._finder.store, chat)
        return await self._answer(http, chat, wish, parent=parent, place="parent")

    async def regenerate(self, http: HttpRequest) -> Response:
        wish = await self._context.read_body(http, parse_regeneration)
        chat = await self._finder.find(http)
        tree = await self._finder.store.chat_tree(chat.id)
        wanted = wish.place or chat.leaf
        if wanted is None:
            raise InvalidRequest("response: nothing was said in this chat yet", param="response")
        turn = None
        if wanted in tree:
            turn = await self._finder.store.chat_turn(wanted, owner=chat.owner)
        if turn is None:
            raise not_found("response", wanted, param="response")
        # Its question keeps its id: by that the answers are versions of each other.
        question = {"input": [item.data for item in turn.inputs]}
        again = replace(wish, fields={**wish.fields, **question})
        parent = turn.response.previous_id
        return await self._answer(http, chat, again, parent=parent, place="response")

    async def _answer(
        self, http: HttpRequest, chat: StoredChat, wish: Wish, *, parent: str | None, place: str
    ) -> Response:
        checked = partial(chat_request, wish, chat.settings, parent=parent, place=place)
        request: ResponseRequest = await self._context.workers.threads.run(checked)
        asker = Asker(
            owner=chat.owner,
            names=(http.state.request_id,),
            is_replayed=True,
            has_reader=bool(request.stream),
            chat_id=chat.id,
        )
        try:
            answer = await self._responses.answer(http, request, asker, tells_position=True)
        except InvalidRequest as error:
            raise renamed(error, {"previous_response_id": place}) from error
        return marked(http, answer)
