"""The application: routes, error handlers, and what stands around them."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from millstream.api.context import ServerContext
from millstream.api.described.page import with_document
from millstream.api.described.route import DescribedRoute, Handler
from millstream.api.guards.protection import protect
from millstream.api.openai.cancellation import CANCEL_CHAT, CANCEL_COMPLETION, cancel
from millstream.api.openai.chat.endpoint import CHAT, ChatCompletions
from millstream.api.openai.completions.endpoint import COMPLETIONS, Completions
from millstream.api.openai.generate.base_endpoint import Endpoint
from millstream.api.openai.models import LIST_MODELS, RETRIEVE_MODEL, Models
from millstream.api.openai.tokenize.endpoints import DETOKENIZE, TOKENIZE, Tokenization
from millstream.api.status.health import HEALTH, health
from millstream.api.status.load import LOAD, PINGS, VERSION, load, version
from millstream.api.wire.error_bodies import (
    handle_http_exception,
    handle_millstream_error,
    handle_unexpected,
)
from millstream.errors import MillstreamError
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.prompts import Prompts


def build_app(context: ServerContext) -> ASGIApp:
    """The application over one engine. Starting and stopping the engine is the caller's."""
    routes = with_document(all_routes(context), context.settings)
    app = Starlette(
        routes=routes,
        exception_handlers={
            MillstreamError: handle_millstream_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
    )
    # Its redirects name the host that the client named, which behind a proxy is the wrong one.
    app.router.redirect_slashes = False
    return protect(app, routes, context.settings)


def all_routes(context: ServerContext) -> list[DescribedRoute]:
    """Every route, over one maker of prompts and one of grammars."""
    prompts, grammars = Prompts(context), AnswerGrammars(context.tokenizer, context.workers)
    chat = ChatCompletions(context, prompts=prompts, grammars=grammars)
    completions = Completions(context, grammars=grammars)
    models, tokenization = Models(context), Tokenization(context, prompts=prompts)
    return [
        CHAT.route(_post(chat)),
        COMPLETIONS.route(_post(completions)),
        CANCEL_CHAT.route(cancel(context)),
        CANCEL_COMPLETION.route(cancel(context)),
        LIST_MODELS.route(models.list_models),
        RETRIEVE_MODEL.route(models.retrieve),
        TOKENIZE.route(tokenization.tokenize),
        DETOKENIZE.route(tokenization.detokenize),
        HEALTH.route(health(context)),
        *(ping.route(health(context)) for ping in PINGS),
        VERSION.route(version),
        LOAD.route(load(context)),
    ]


def _post(endpoint: Endpoint[Any]) -> Handler:
    # Starlette takes a callable object for a raw ASGI app, so it gets the function.
    async def post(request: Request) -> Response:
        return await endpoint(request)

    return post
