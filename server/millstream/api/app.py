"""The application: routes, error handlers, and what stands around them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from millstream.api.context import ServerContext
from millstream.api.described.document_endpoint import with_document
from millstream.api.guards.protection import protect
from millstream.api.routes import all_routes
from millstream.api.wire.error_bodies import (
    handle_http_exception,
    handle_millstream_error,
    handle_unexpected,
)
from millstream.api.wire.sockets import SocketRoutes
from millstream.errors import MillstreamError


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
    sockets = {route.path: route.socket for route in routes if route.socket is not None}
    both = SocketRoutes(app, handlers=sockets, root_path=context.settings.root_path or "")
    return protect(
        both,
        routes,
        context.settings,
        session_secret=context.session_secret,
        metrics=context.http_metrics,
        trace=context.trace,
        owner=context.owner,
        keys=context.keys,
    )
