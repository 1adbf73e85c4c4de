"""/v1/chats: list, create, retrieve, change, delete, clear, and the messages of the branch."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.chats.bodies import parse_changes, parse_new_chat
from millstream.api.chats.finding import (
    ChatFinder,
    known_visitor,
    marked,
    new_chat,
    unknown_chat,
)
from millstream.api.chats.shown import shown_branch, shown_chat, shown_messages
from millstream.api.context import ServerContext
from millstream.api.openai.responses.history import not_found
from millstream.api.openai.responses.paging import listed, read_page_query
from millstream.api.peers.asking import does_any
from millstream.api.peers.peers import Peers
from millstream.api.wire.resuming import owner_of
from millstream.errors import InvalidRequest, WorkerUnavailable
from millstream.store.chats import ChatBranch
from millstream.store.records import RUNNING, StoredChat

T = TypeVar("T")

_LONGEST_QUERY = 200


class Chats:
    """The endpoints that say nothing. Hold no state of their own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._finder = ChatFinder(context)

    async def list_chats(self, http: HttpRequest) -> Response:
        store, page = self._finder.store, read_page_query(http)
        if page.is_descending is False:
            raise InvalidRequest("order: chats are listed from the newest on", param="order")
        words = _read_words(http)
        owner = known_visitor(http)
        found, has_more = await store.chats(
            owner=owner, after=page.after, limit=page.limit, words=words
        )
        return marked(
            http, JSONResponse(listed([shown_chat(chat) for chat in found], has_more=has_more))
        )

    async def create(self, http: HttpRequest) -> Response:
        store, body = self._finder.store, await self._context.read_body(http, parse_new_chat)
        chat = new_chat(owner_of(http), title=body.title, settings=body.settings)
        await store.create_chat(chat)
        return JSONResponse(self._shown(ChatBranch.empty(chat)))

    async def retrieve(self, http: HttpRequest) -> Response:
        return marked(http, JSONResponse(self._shown(await self._branch(http))))

    async def messages(self, http: HttpRequest) -> Response:
        page = read_page_query(http)
        branch = await self._branch(http)
        messages = shown_messages(branch, self._finder.runs_of(branch.chat))
        if page.is_descending:
            messages.reverse()
        if page.after is not None:
            places = [place for place, one in enumerate(messages) if one["id"] == page.after]
            if not places:
                raise InvalidRequest("after: no message of this branch has this id", param="after")
            messages = messages[places[0] + 1 :]
        has_more = len(messages) > page.limit
        return marked(http, JSONResponse(listed(messages[: page.limit], has_more=has_more)))

    async def update(self, http: HttpRequest) -> Response:
        store, changes = self._finder.store, await self._context.read_body(http, parse_changes)
        chat = await self._finder.find(http)
        if (leaf := changes.get("leaf")) is not None:
            tree = await store.chat_tree(chat.id)
            if leaf not in tree:
                raise not_found("response", leaf, param="leaf")
            changes["leaf"] = tree.last_below(leaf)
        if changes:
            await store.update_chat(chat.id, owner=chat.owner, changes=changes)
        return marked(http, JSONResponse(self._shown(await self._finder.branch(chat))))

    async def delete(self, http: HttpRequest) -> Response:
        store, chat = self._finder.store, await self._finder.find(http)
        await self._stop_all(http, chat)
        if not await store.delete_chat(chat.id, owner=chat.owner):
            raise unknown_chat(chat.id)
        deleted = {"id": chat.id, "object": "chat.deleted", "deleted": True}
        return marked(http, JSONResponse(deleted))

    async def clear(self, http: HttpRequest) -> Response:
        store, chat = self._finder.store, await self._finder.find(http)
        await self._stop_all(http, chat)
        cleared = await store.clear_chat(chat.id, owner=chat.owner)
        if cleared is None:
            raise unknown_chat(chat.id)
        return marked(http, JSONResponse(self._shown(ChatBranch.empty(cleared))))

    async def _branch(self, http: HttpRequest) -> ChatBranch:
        return await self._finder.branch(await self._finder.find(http))

    async def _stop_all(self, http: HttpRequest, chat: StoredChat) -> None:
        """Ends the responses of a chat that are being made, here or by other HTTP workers."""
        tree = await self._finder.store.chat_tree(chat.id)
        ids = [node.id for node in tree if node.status in RUNNING]
        runs = [self._context.runs.find(one, owner=chat.owner) for one in ids]
        for run in runs:
            if run is not None:
                run.cancel()
        for run in runs:
            if run is not None:
                await run.settled()
        if (peers := self._context.peers) is not None:
            await asyncio.gather(*(self._stop_elsewhere(http, peers, one) for one in ids))

    async def _stop_elsewhere(self, http: HttpRequest, peers: Peers, response_id: str) -> None:
        """Ends a response if another worker makes it. One that is gone makes none."""
        maker = peers.other_maker(response_id)
        if maker is not None:
            path = f"/v1/responses/{response_id}/cancel"
            with suppress(WorkerUnavailable):
                await does_any(peers, [maker], http, path=path)

    def _shown(self, branch: ChatBranch) -> dict[str, Any]:
        return shown_branch(branch, self._finder.runs_of(branch.chat))


def _read_words(http: HttpRequest) -> list[str]:
    """The words that are searched. Raises InvalidRequest."""
    query = http.query_params.get("query", "")
    if len(query) > _LONGEST_QUERY:
        raise InvalidRequest(f"query: at most {_LONGEST_QUERY} letters", param="query")
    return query.split()
