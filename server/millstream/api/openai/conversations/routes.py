"""The routes of the Conversations API."""

from __future__ import annotations

from millstream.api.context import ServerContext
from millstream.api.described.route import DescribedRoute
from millstream.api.openai.conversations.endpoints import (
    ADD_ITEMS,
    CREATE_CONVERSATION,
    DELETE_CONVERSATION,
    DELETE_ITEM,
    LIST_ITEMS,
    RETRIEVE_CONVERSATION,
    RETRIEVE_ITEM,
    UPDATE_CONVERSATION,
    Conversations,
)


def conversation_routes(context: ServerContext) -> list[DescribedRoute]:
    """All of them."""
    conversations = Conversations(context)
    return [
        CREATE_CONVERSATION.route(conversations.create),
        RETRIEVE_CONVERSATION.route(conversations.retrieve),
        UPDATE_CONVERSATION.route(conversations.update),
        DELETE_CONVERSATION.route(conversations.delete),
        ADD_ITEMS.route(conversations.add_items),
        LIST_ITEMS.route(conversations.list_items),
        RETRIEVE_ITEM.route(conversations.retrieve_item),
        DELETE_ITEM.route(conversations.delete_item),
    ]
