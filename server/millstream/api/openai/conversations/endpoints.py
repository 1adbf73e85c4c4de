"""/v1/conversations: create, retrieve, update, delete, and their items.

Rule: what is unknown, deleted or somebody else's is the same 404.
"""

from __future__ import annotations

from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.openai.conversations.bodies import (
    NewConversation,
    NewItems,
    NewMetadata,
    parse_conversation,
    parse_items,
    parse_metadata,
)
from millstream.api.openai.conversations.creation import new_conversation
from millstream.api.openai.conversations.shapes import ConversationObject, DeletedConversation
from millstream.api.openai.responses.history import not_found
from millstream.api.openai.responses.paging import item_list, read_page_query
from millstream.api.openai.responses.shapes import ItemList
from millstream.api.wire.resuming import owner_of
from millstream.errors import NotFound
from millstream.store.records import Page, StoredConversation, StoredItem
from millstream.store.store import Store

T = TypeVar("T")

_ALL = "/v1/conversations"
_ONE = "/v1/conversations/{id}"
_ITEMS = f"{_ONE}/items"
_ITEM = f"{_ITEMS}/{{item_id}}"
_ANY_ITEM = dict[str, Any]

CREATE_CONVERSATION = Operation(
    path=_ALL,
    method="POST",
    summary="A new conversation, with items or without",
    request=NewConversation,
    answers={200: {JSON: ConversationObject}},
    errors=(404, 503),
)
RETRIEVE_CONVERSATION = Operation(
    path=_ONE,
    method="GET",
    summary="A conversation",
    answers={200: {JSON: ConversationObject}},
    errors=(404, 503),
)
UPDATE_CONVERSATION = Operation(
    path=_ONE,
    method="POST",
    summary="Gives a conversation other metadata",
    request=NewMetadata,
    answers={200: {JSON: ConversationObject}},
    errors=(404, 503),
)
DELETE_CONVERSATION = Operation(
    path=_ONE,
    method="DELETE",
    summary="Deletes a conversation, with its items and the responses made in it",
    answers={200: {JSON: DeletedConversation}},
    errors=(404, 503),
)
ADD_ITEMS = Operation(
    path=_ITEMS,
    method="POST",
    summary="Adds items to a conversation",
    request=NewItems,
    answers={200: {JSON: ItemList}},
    errors=(404, 409, 503),
)
LIST_ITEMS = Operation(
    path=_ITEMS,
    method="GET",
    summary="The items of a conversation, a page at a time",
    answers={200: {JSON: ItemList}},
    errors=(400, 404, 503),
)
RETRIEVE_ITEM = Operation(
    path=_ITEM,
    method="GET",
    summary="An item of a conversation",
    answers={200: {JSON: _ANY_ITEM}},
    errors=(404, 503),
)
DELETE_ITEM = Operation(
    path=_ITEM,
    method="DELETE",
    summary="Deletes an item of a conversation, and answers with the conversation",
    answers={200: {JSON: ConversationObject}},
    errors=(404, 503),
)


class Conversations:
    """The endpoints. Hold no state of their own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def create(self, http: HttpRequest) -> Response:
        store, body = self._store, await self._context.read_body(http, parse_conversation)
        conversation = new_conversation(owner_of(http), metadata=body.metadata)
        await store.create_conversation(conversation, _stored(body.stored_items))
        return JSONResponse(_shown(conversation))

    async def retrieve(self, http: HttpRequest) -> Response:
        return JSONResponse(_shown(await self._conversation(http)))

    async def update(self, http: HttpRequest) -> Response:
        store, body = self._store, await self._context.read_body(http, parse_metadata)
        identifier = http.path_params["id"]
        updated = await store.update_conversation(
            identifier, owner=owner_of(http), metadata=body.metadata
        )
        if updated is None:
            raise _unknown(identifier)
        return JSONResponse(_shown(updated))

    async def delete(self, http: HttpRequest) -> Response:
        identifier = http.path_params["id"]
        if not await self._store.delete_conversation(identifier, owner=owner_of(http)):
            raise _unknown(identifier)
        deleted = {"id": identifier, "object": "conversation.deleted", "deleted": True}
        return JSONResponse(deleted)

    async def add_items(self, http: HttpRequest) -> Response:
        store, body = self._store, await self._context.read_body(http, parse_items)
        identifier, items = http.path_params["id"], _stored(body.stored_items)
        if not await store.add_items(identifier, owner=owner_of(http), items=items):
            raise _unknown(identifier)
        return JSONResponse(item_list(Page(items=items, has_more=False)))

    async def list_items(self, http: HttpRequest) -> Response:
        query, identifier = read_page_query(http), http.path_params["id"]
        page = await self._store.conversation_items(
            identifier,
            owner=owner_of(http),
            after=query.after,
            limit=query.limit,
            is_descending=query.is_descending,
        )
        if page is None:
            raise _unknown(identifier)
        return JSONResponse(item_list(page))

    async def retrieve_item(self, http: HttpRequest) -> Response:
        item_id = http.path_params["item_id"]
        item = await self._store.conversation_item(
            http.path_params["id"], item_id, owner=owner_of(http)
        )
        if item is None:
            raise not_found("item", item_id, param="item_id")
        return JSONResponse(item.data)

    async def delete_item(self, http: HttpRequest) -> Response:
        conversation = await self._conversation(http)
        item_id = http.path_params["item_id"]
        if not await self._store.delete_item(conversation.id, item_id, owner=owner_of(http)):
            raise not_found("item", item_id, param="item_id")
        return JSONResponse(_shown(conversation))

    @property
    def _store(self) -> Store:
        """Raises NotFound on a server that keeps nothing."""
        if self._context.store is None:
            raise NotFound("this server keeps no conversations (--store off)", code="store_off")
        return self._context.store

    async def _conversation(self, http: HttpRequest) -> StoredConversation:
        identifier = http.path_params["id"]
        found = await self._store.conversation(identifier, owner=owner_of(http))
        if found is None:
            raise _unknown(identifier)
        return found


def _stored(items: list[dict[str, Any]]) -> list[StoredItem]:
    return [StoredItem(id=item["id"], data=item) for item in items]


def _shown(conversation: StoredConversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created,
        "metadata": conversation.metadata,
    }


def _unknown(identifier: str) -> NotFound:
    return not_found("conversation", identifier, param="id")
