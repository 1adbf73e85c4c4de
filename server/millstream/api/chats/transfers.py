"""GET /v1/chats/{id}/export and POST /v1/chats/import: whole chats as documents."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.chats.chat_file import chat_as_file
from millstream.api.chats.finding import ChatFinder, marked, unknown_chat
from millstream.api.chats.imported import read_chat_file
from millstream.api.chats.shown import shown_branch
from millstream.api.context import ServerContext
from millstream.api.described.route import JSON
from millstream.api.wire.json_body import read_json
from millstream.api.wire.resuming import owner_of
from millstream.store.json_text import to_text

_BODIES = 10
"""How many times longer than other bodies a document may be: it is many of them."""


class ChatTransfers:
    """The endpoints. Hold no state of their own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._finder = ChatFinder(context)

    async def export(self, http: HttpRequest) -> Response:
        chat = await self._finder.find(http)
        whole = await self._finder.branch(chat, is_whole=True)
        document = chat_as_file(whole, self._finder.runs_of(chat))
        text = await self._context.workers.threads.run(partial(to_text, document))
        return marked(http, Response(text, media_type=JSON))

    async def import_chat(self, http: HttpRequest) -> Response:
        store, owner = self._finder.store, owner_of(http)
        imported = await read_json(
            http,
            limit=_BODIES * self._context.settings.payload_limit,
            check=partial(read_chat_file, owner=owner),
            threads=self._context.workers.bodies,
        )
        await store.import_chat(imported.chat, imported.turns)
        branch = await store.chat_branch(imported.chat.id, owner=owner)
        if branch is None:
            raise unknown_chat(imported.chat.id)
        return JSONResponse(shown_branch(branch, self._finder.runs_of(imported.chat)))
