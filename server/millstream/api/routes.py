"""Every route that is served, in the order in which paths are looked up."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from millstream.api.anthropic.endpoint import COUNT_TOKENS, MESSAGES, Messages, TokenCounts
from millstream.api.chats.routes import chat_routes
from millstream.api.context import ServerContext
from millstream.api.described.route import DescribedRoute, Handler
from millstream.api.metrics.endpoint import metrics_route
from millstream.api.openai.cancellation import CANCEL_CHAT, CANCEL_COMPLETION, cancel
from millstream.api.openai.chat.endpoint import CHAT, DELETE_CHAT, RESUME_CHAT, ChatCompletions
from millstream.api.openai.completions.endpoint import (
    COMPLETIONS,
    DELETE_COMPLETION,
    RESUME_COMPLETION,
    Completions,
)
from millstream.api.openai.conversations.routes import conversation_routes
from millstream.api.openai.generate.base_endpoint import Endpoint
from millstream.api.openai.generate.resumption import delete, resume
from millstream.api.openai.models import LIST_MODELS, RETRIEVE_MODEL, Models
from millstream.api.openai.response_sockets.endpoint import response_socket
from millstream.api.openai.responses.maker import ResponseMaker
from millstream.api.openai.responses.routes import response_routes
from millstream.api.openai.tokenize.endpoints import DETOKENIZE, TOKENIZE, Tokenization
from millstream.api.pages.endpoints import page_routes
from millstream.api.peers.forwarding import where_it_is_made
from millstream.api.sessions.endpoints import BEGIN_SESSION, FORGET_SESSION, Sessions
from millstream.api.socket_chat.endpoint import CHAT_SOCKET, chat_socket, upgrade_required
from millstream.api.status.health import HEALTH, health
from millstream.api.status.load import LOAD, PINGS, VERSION, load, version
from millstream.api.status.probes import LIVE, READY, live, ready
from millstream.api.tgi.routes import tgi_routes
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.prompts import Prompts


def all_routes(context: ServerContext) -> list[DescribedRoute]:
    """Every route, over one maker of prompts and one of grammars."""
    prompts, grammars = Prompts(context), AnswerGrammars(context.tokenizer, context.workers)
    chat = ChatCompletions(context, prompts=prompts, grammars=grammars)
    completions = Completions(context, grammars=grammars)
    maker = ResponseMaker(context, prompts=prompts, grammars=grammars)
    messages = Messages(context, prompts=prompts, grammars=grammars)
    models, tokenization = Models(context), Tokenization(context, prompts=prompts)
    sessions = Sessions()
    resumed = where_it_is_made(context.peers, resume(context))
    deleted = where_it_is_made(context.peers, delete(context))
    return [
        CHAT.route(_post(chat)),
        COMPLETIONS.route(_post(completions)),
        MESSAGES.route(_post(messages)),
        COUNT_TOKENS.route(TokenCounts(context, prompts=prompts).count),
        *response_routes(
            context,
            maker,
            prompts=prompts,
            grammars=grammars,
            socket=response_socket(context, maker),
        ),
        *conversation_routes(context),
        *chat_routes(context, maker),
        *tgi_routes(
            context, prompts=prompts, grammars=grammars, chat=chat, completions=completions
        ),
        CHAT_SOCKET.route(upgrade_required, socket=chat_socket(context, maker)),
        *(one.route(resumed) for one in (RESUME_CHAT, RESUME_COMPLETION)),
        *(one.route(deleted) for one in (DELETE_CHAT, DELETE_COMPLETION)),
        CANCEL_CHAT.route(cancel(context)),
        CANCEL_COMPLETION.route(cancel(context)),
        LIST_MODELS.route(models.list_models),
        RETRIEVE_MODEL.route(models.retrieve),
        TOKENIZE.route(tokenization.tokenize),
        DETOKENIZE.route(tokenization.detokenize),
        BEGIN_SESSION.route(sessions.begin),
        FORGET_SESSION.route(sessions.forget),
        HEALTH.route(health(context)),
        *(ping.route(health(context)) for ping in PINGS),
        LIVE.route(live(context)),
        READY.route(ready(context)),
        VERSION.route(version),
        LOAD.route(load(context)),
        *page_routes(context.settings),
        metrics_route(context),
    ]


def _post(endpoint: Endpoint[Any]) -> Handler:
    # Starlette takes a callable object for a raw ASGI app, so it gets the function.
    async def post(request: Request) -> Response:
        return await endpoint(request)

    return post
