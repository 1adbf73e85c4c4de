"""Whose chat a request is about: one by its id, or the current one of the visitor.

Rules: what is unknown, deleted or somebody else's is the same 404. A visitor who has neither key
nor session is nobody: what nobody has made is found by its id alone, by whoever knows it, and never
in a list. `current` and lists begin a session.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.answering.runs import Run
from millstream.api.context import ServerContext
from millstream.api.openai.responses.history import not_found
from millstream.api.sessions.request_session import session_of
from millstream.api.wire.resuming import owner_of, owners_of
from millstream.errors import InvalidRequest, NotFound
from millstream.store.chats import ChatBranch
from millstream.store.records import RUNNING, StoredChat
from millstream.store.store import Store

CURRENT = "current"
_NOBODY = ""


def new_chat(
    owner: str,
    *,
    title: str | None = None,
    settings: dict[str, Any] | None = None,
    created: int | None = None,
) -> StoredChat:
    """An empty one. created: in seconds since 1970; now, if it is not said."""
    return StoredChat(
        id=f"chat_{secrets.token_hex(24)}",
        owner=owner,
        created=int(time.time()) if created is None else created,
        changed=time.time_ns() // 1000,
        title=title,
        settings=settings or {},
    )


def unknown_chat(identifier: str) -> NotFound:
    """What is said of a chat that is not there for the visitor."""
    return not_found("chat", identifier, param="id")


def known_visitor(http: HttpRequest) -> str:
    """The owner of a request, who gets a session if there is nothing else to know them by.

    Raises InvalidRequest where there are no sessions.
    """
    session = session_of(http)
    if session is not None:
        session.begin()
    owner = owner_of(http)
    if owner == _NOBODY:
        raise InvalidRequest("this server does not know whose the request is; name a chat's id")
    return owner


def marked(http: HttpRequest, response: Response) -> Response:
    """The answer, with the cookie of a session that was begun."""
    session = session_of(http)
    return response if session is None else session.mark(response)


class ChatFinder:
    """Finds chats in the store of a server."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @property
    def store(self) -> Store:
        """Raises NotFound on a server that keeps nothing."""
        if self._context.store is None:
            raise NotFound("this server keeps no chats (--store off)", code="store_off")
        return self._context.store

    async def find(self, http: HttpRequest) -> StoredChat:
        """The chat that the path names; the current one is made if there is none yet."""
        store, identifier = self.store, http.path_params["id"]
        if identifier == CURRENT:
            return await store.newest_chat_or(new_chat(known_visitor(http)))
        for owner in owners_of(http):
            if (found := await store.chat(identifier, owner=owner)) is not None:
                return found
        raise unknown_chat(identifier)

    async def branch(self, chat: StoredChat, *, is_whole: bool = False) -> ChatBranch:
        """The branch as it is stored, or all of them. What ended while it was read is read again,
        since what it has said is no longer in its run, and was not in the store yet."""
        branch = await self._stored_branch(chat, is_whole=is_whole)
        running = [node.id for node in branch.tree if node.status in RUNNING]
        if all(map(self.runs_of(chat), running)):
            return branch
        return await self._stored_branch(chat, is_whole=is_whole)

    def runs_of(self, chat: StoredChat) -> Callable[[str], Run | None]:
        """What finds the run of a response of the chat that is being made here."""
        return partial(self._context.runs.find, owner=chat.owner)

    async def _stored_branch(self, chat: StoredChat, *, is_whole: bool) -> ChatBranch:
        branch = await self.store.chat_branch(chat.id, owner=chat.owner, is_whole=is_whole)
        if branch is None:
            raise unknown_chat(chat.id)
        return branch


async def last_said(store: Store, chat: StoredChat) -> str | None:
    """What a message follows that names nothing: the leaf, or what comes before one that is still
    being made, of which its sender has not read the end."""
    leaf = chat.leaf
    while leaf is not None:
        found = await store.response(leaf, owner=chat.owner)
        if found is None or found.status not in RUNNING:
            return leaf
        leaf = found.previous_id
    return None
