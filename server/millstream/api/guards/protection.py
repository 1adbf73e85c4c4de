"""What stands between the socket and the routes, from the outside in.

    RequestId       every answer has an id, whoever makes it, and every request a line in the log
    RootPath        a proxy may have taken the prefix away, or not
    CORSMiddleware  also for refusals and failures, so that a page can read why
    CheckHost       nothing of a request is routed that calls the server by another name
    CheckOrigin     no page of another site opens a WebSocket
    KnowOwner       where the server is mounted: whose a request is, as the application says
    RequireKey      nothing of a request is read or routed without a key
    TellLimits      answers say what is left of the key's limits
    KnowSession     on a server without keys: whose a request is that has a cookie

Intentional: around Starlette's application, not in it. Its own list of middleware stands inside of
what answers 500, whose answers would then lack the id and the CORS headers.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Sequence
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.api.context import OwnerFunction
from millstream.api.described.route import DescribedRoute
from millstream.api.guards.hosts import CheckHost
from millstream.api.guards.keys import RequireKey
from millstream.api.guards.limits import LIMIT_HEADERS, TellLimits
from millstream.api.guards.origins import CheckOrigin
from millstream.api.guards.owners import KnowOwner
from millstream.api.sessions.cookies import PATH, SessionCookies
from millstream.api.sessions.guard import KnowSession
from millstream.api.wire.forwarded import FAILURE_HEADER, failure_header, is_forwarded
from millstream.api.wire.messages_errors import speaks_messages
from millstream.api.wire.request_log import RequestRecord
from millstream.errors import StartupError
from millstream.metrics.ended_request import Trace
from millstream.metrics.http_metrics import HttpMetrics
from millstream.quotas.key_ring import KeyRing
from millstream.settings import Settings

EXPOSED_HEADERS = (
    "X-Request-Id",
    "Request-Id",
    "Retry-After",
    "WWW-Authenticate",
    "X-Unenforced-Keywords",
    *LIMIT_HEADERS,
)

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_SWITCHING = 101
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_origins(settings: Settings) -> None:
    """Raises StartupError for a combination that would hand out the browser's credentials."""
    if settings.allow_credentials and "*" in (settings.allowed_origins or ("*",)):
        raise StartupError("--allow-credentials: name the pages in --allowed-origins, without *")


def protect(
    app: ASGIApp,
    routes: Sequence[DescribedRoute],
    settings: Settings,
    *,
    session_secret: bytes,
    metrics: HttpMetrics,
    trace: Trace | None = None,
    owner: OwnerFunction | None = None,
    keys: KeyRing | None = None,
) -> ASGIApp:
    """The application as the socket sees it. session_secret: what its cookies are signed with.

    metrics: counts what is answered. trace: hears of it. owner: says whose a request is, instead of
    keys and cookies. keys: None for those of the settings alone.
    """
    root_path = settings.root_path or ""
    is_open = OpenRoutes(routes, root_path=root_path)
    if owner is not None:
        app = KnowOwner(app, owner=owner, is_open=is_open)
    elif keys is not None or settings.api_key:
        keys = keys or KeyRing(settings.api_key or ())
        app = RequireKey(TellLimits(app), keys=keys, is_open=is_open)
    else:
        app = _know_session(app, settings, is_open=is_open, secret=session_secret)
    app = CheckOrigin(app, origins=settings.allowed_origins or ())
    if settings.allowed_hosts:
        app = CheckHost(app, names=settings.allowed_hosts, is_open=is_open)
    if settings.allowed_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.allowed_origins,
            allow_methods=sorted({route.operation.method for route in routes}),
            allow_headers=["*"],
            allow_credentials=settings.allow_credentials,
            allow_private_network=True,
            expose_headers=EXPOSED_HEADERS,
        )
    paths = [route.path for route in routes if route.operation.is_probe]
    probes = {*paths, *(root_path + path for path in paths)}
    app = RootPath(app, root_path=root_path)
    return RequestId(app, probes=probes, metrics=metrics, trace=trace, root_path=root_path)


def _know_session(
    app: ASGIApp, settings: Settings, *, is_open: Callable[[Scope], bool], secret: bytes
) -> ASGIApp:
    root_path = settings.root_path or ""
    cookies = SessionCookies(secret, days=settings.session_days, path=quote(root_path or "/"))
    begins_session = root_path + PATH
    return KnowSession(
        app,
        cookies=cookies,
        is_open=lambda scope: is_open(scope) or scope["path"] == begins_session,
    )


class OpenRoutes:
    """Tells which requests are for a route that is open to all. A path may have such a route beside
    one that is not: then the method decides."""

    def __init__(self, routes: Sequence[DescribedRoute], *, root_path: str) -> None:
        opened = [route for route in routes if route.operation.is_open]
        self._root_path = root_path
        self._paths = {root_path + route.path for route in opened}
        self._patterns = [route.path_regex for route in opened if route.param_convertors]
        self._closed = {
            (route.operation.method, root_path + route.path)
            for route in routes
            if not route.operation.is_open
        }

    def __call__(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in self._paths:
            return (scope.get("method"), path) not in self._closed
        inner = path.removeprefix(self._root_path)
        return any(pattern.match(inner) for pattern in self._patterns)


class RootPath:
    """Gives every path the prefix, which a proxy may have removed, exactly once."""

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._root_path and scope["type"] in ("http", "websocket"):
            path, root = scope["path"], self._root_path
            if path == root:
                path += "/"
            full = path if path.startswith(root + "/") else root + path
            scope = {**scope, "root_path": root, "path": full}
        await self._app(scope, receive, send)


class RequestId:
    """Answers every request with `x-request-id`: the client's if it is harmless, else a new one.
    Clients of the Messages API read it as `request-id`.

    Handlers find it as `request.state.request_id`, and the request's record beside it. probes:
    paths that are asked for every few seconds, with the root path or without.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        probes: Collection[str],
        metrics: HttpMetrics,
        trace: Trace | None = None,
        root_path: str = "",
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._probes = frozenset(probes)
        self._metrics, self._trace = metrics, trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        is_probe = scope["path"] in self._probes
        record = RequestRecord(
            scope,
            request_id=request_id,
            is_probe=is_probe,
            metrics=self._metrics,
            trace=self._trace,
        )
        scope.setdefault("state", {}).update(request_id=request_id, record=record)
        is_elsewhere = is_forwarded(scope)  # there it is logged and counted

        async def send_with_id(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if speaks_messages(scope, root_path=self._root_path):
                    headers["request-id"] = request_id
                if is_elsewhere and record.error is not None:
                    headers[FAILURE_HEADER.decode()] = failure_header(record.error)
                if message["type"] == "websocket.accept":
                    record.respond(_SWITCHING)
                else:
                    record.respond(message["status"], headers)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if not is_elsewhere:
                record.write()
