"""Finds whose a request is on a server without keys: its session's, if it has one."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.sessions.cookies import SessionCookies, owner_of_session
from millstream.api.wire.error_bodies import error_response
from millstream.errors import Unauthorized


class KnowSession:
    """Handlers find the owner as `request.state.tenant`. Answers 401 for a cookie that was not made
    here, except on open_paths: there it is as if there were none."""

    def __init__(
        self, app: ASGIApp, *, cookies: SessionCookies, open_paths: Collection[str]
    ) -> None:
        self._app = app
        self._cookies = cookies
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            session = self._cookies.read(scope["headers"])
        except Unauthorized as error:
            if scope["path"] not in self._open_paths:
                await error_response(error)(scope, receive, send)
                return
            session = None
        if session is not None:
            scope.setdefault("state", {})["tenant"] = owner_of_session(session)
        await self._app(scope, receive, send)
