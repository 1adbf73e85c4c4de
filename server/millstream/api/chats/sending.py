"""Messages of a chat: a response for each, which goes on when its reader leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.chats.bodies import (
    Wish,
    chat_request,
    parse_message,
    parse_regeneration,
    renamed,
)
from millstream.api.chats.cut_answers import check_goes_on, said_by
from millstream.api.chats.finding import ChatFinder, last_said, marked
from millstream.api.context import ServerContext
from millstream.api.openai.responses.endpoint import Responses
from millstream.api.openai.responses.history import not_found
from millstream.api.openai.responses.maker import Asker, ResponseMaker
from millstream.api.wire.owned_names import owned_name
from millstream.errors import InvalidRequest
from millstream.intake.responses.request import ResponseRequest
from millstream.store.records import ChatTurn, StoredChat

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
        turn = await self._turn(chat, wish)
        return await self._answer_again(http, chat, wish, turn)

    async def go_on(self, http: HttpRequest) -> Response:
        wish = await self._context.read_body(http, parse_regeneration)
        chat = await self._finder.find(http)
        turn = await self._turn(chat, wish)
        return await self._answer_again(http, chat, wish, turn, said=said_by(turn))

    async def _turn(self, chat: StoredChat, wish: Wish) -> ChatTurn:
        """The answer that is meant, with its question."""
        tree = await self._finder.store.chat_tree(chat.id)
        wanted = wish.place or chat.leaf
        if wanted is None:
            raise InvalidRequest("response: nothing was said in this chat yet", param="response")
        turn = None
        if wanted in tree:
            turn = await self._finder.store.chat_turn(wanted, owner=chat.owner)
        if turn is None:
            raise not_found("response", wanted, param="response")
        return turn

    async def _answer_again(
        self,
        http: HttpRequest,
        chat: StoredChat,
        wish: Wish,
        turn: ChatTurn,
        *,
        said: Sequence[dict[str, Any]] = (),
    ) -> Response:
        # Its question keeps its id: by that the answers are versions of each other.
        question = {"input": [item.data for item in turn.inputs]}
        again = replace(wish, fields={**wish.fields, **question})
        parent = turn.response.previous_id
        return await self._answer(http, chat, again, parent=parent, place="response", said=said)

    async def _answer(
        self,
        http: HttpRequest,
        chat: StoredChat,
        wish: Wish,
        *,
        parent: str | None,
        place: str,
        said: Sequence[dict[str, Any]] = (),
    ) -> Response:
        """Makes it. place: what the body calls the parent. said: what the answer begins with."""
        checked = partial(chat_request, wish, chat.settings, parent=parent, place=place)
        request: ResponseRequest = await self._context.workers.threads.run(checked)
        if said:
            check_goes_on(request)
        asker = Asker(
            owner=chat.owner,
            names=(owned_name(chat.owner, http.state.request_id),),
            is_replayed=True,
            has_reader=bool(request.stream),
            chat_id=chat.id,
            said=said,
        )
        try:
            answer = await self._responses.answer(http, request, asker)
        except InvalidRequest as error:
            raise renamed(error, {"previous_response_id": place}) from error
        return marked(http, answer)
