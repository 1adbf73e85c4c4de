"""The routes of the Responses API."""

from __future__ import annotations

from millstream.api.context import ServerContext
from millstream.api.described.route import DescribedRoute
from millstream.api.openai.responses.endpoint import CREATE_RESPONSE, Responses
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.openai.responses.stored import (
    CANCEL_RESPONSE,
    DELETE_RESPONSE,
    LIST_INPUT_ITEMS,
    RETRIEVE_RESPONSE,
    StoredResponses,
)


def response_routes(context: ServerContext, maker: ResponseMaker) -> list[DescribedRoute]:
    """All of them; those whose path is a word stand before those whose path has an id."""
    responses, stored = Responses(context, maker), StoredResponses(context)
    return [
        CREATE_RESPONSE.route(responses.create),
        RETRIEVE_RESPONSE.route(stored.retrieve),
        DELETE_RESPONSE.route(stored.delete),
        CANCEL_RESPONSE.route(stored.cancel),
        LIST_INPUT_ITEMS.route(stored.input_items),
    ]
