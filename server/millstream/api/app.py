"""The Starlette application: routes, error handlers, request ids."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.api.context import ServerContext
from millstream.api.errors import (
    handle_http_exception,
    handle_millstream_error,
    handle_unexpected,
)
from millstream.api.openai.chat import ChatCompletions
from millstream.errors import MillstreamError
from millstream.runtime.client import State

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def build_app(context: ServerContext) -> Starlette:
    """The application over one engine. Starting and stopping the engine is the caller's."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", _post(ChatCompletions(context)), methods=["POST"]),
            Route("/v1/models", _models(context)),
            Route("/health", _health(context)),
        ],
        middleware=[Middleware(RequestId)],
        exception_handlers={
            MillstreamError: handle_millstream_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
    )


def _post(endpoint: ChatCompletions) -> Handler:
    # Starlette takes a callable object for a raw ASGI app, so it gets the function.
    async def post(request: Request) -> Response:
        return await endpoint(request)

    return post


def _models(context: ServerContext) -> Handler:
    created = int(time.time())

    async def models(request: Request) -> Response:
        model = {
            "id": context.settings.model_name,
            "object": "model",
            "created": created,
            "owned_by": "millstream",
        }
        return JSONResponse({"object": "list", "data": [model]})

    return models


def _health(context: ServerContext) -> Handler:
    async def health(request: Request) -> Response:
        """200 when requests are served, 503 while loading, restarting or shutting down."""
        engine = context.engine
        body = {
            "status": engine.state.value,
            "open_requests": engine.num_open,
            "engine": asdict(engine.statistics),
        }
        return JSONResponse(body, status_code=200 if engine.state is State.READY else 503)

    return health


class RequestId:
    """Answers every request with `x-request-id`: the client's if it is harmless, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
