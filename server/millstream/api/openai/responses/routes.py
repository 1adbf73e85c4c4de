"""The routes of the Responses API."""

from __future__ import annotations

from millstream.api.context import ServerContext
from millstream.api.described.route import DescribedRoute
from millstream.api.openai.responses.compaction import COMPACT, Compactor
from millstream.api.openai.responses.counting import COUNT_INPUT_TOKENS, InputCounting
from millstream.api.openai.responses.endpoint import CREATE_RESPONSE, Responses
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.openai.responses.stored import (
    CANCEL_RESPONSE,
    DELETE_RESPONSE,
    LIST_INPUT_ITEMS,
    RETRIEVE_RESPONSE,
    StoredResponses,
)
from millstream.api.peers.forwarding import where_it_is_made
from millstream.api.wire.sockets import SocketHandler
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.prompts import Prompts


def response_routes(
    context: ServerContext,
    maker: ResponseMaker,
    *,
    prompts: Prompts,
    grammars: AnswerGrammars,
    socket: SocketHandler,
) -> list[DescribedRoute]:
    """All of them; those whose path is a word stand before those whose path has an id.

    socket: what makes responses over WebSockets.
    """
    responses, stored = Responses(context, maker), StoredResponses(context)
    counting = InputCounting(context, prompts=prompts)
    compactor = Compactor(context, prompts=prompts, grammars=grammars)
    return [
        CREATE_RESPONSE.route(responses.create, socket=socket),
        COUNT_INPUT_TOKENS.route(counting.count),
        COMPACT.route(compactor.compact),
        RETRIEVE_RESPONSE.route(where_it_is_made(context.peers, stored.retrieve)),
        DELETE_RESPONSE.route(where_it_is_made(context.peers, stored.delete)),
        CANCEL_RESPONSE.route(where_it_is_made(context.peers, stored.cancel)),
        LIST_INPUT_ITEMS.route(stored.input_items),
    ]
