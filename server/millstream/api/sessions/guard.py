"""Finds whose a request is on a server without keys: its session's, if it has one."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.api.sessions.cookies import SessionCookies
from millstream.api.sessions.request_session import RequestSession
from millstream.api.wire.error_bodies import error_response
from millstream.api.wire.resuming import SESSION_STATE
from millstream.errors import Unauthorized


class KnowSession:
    """Handlers find the owner as `request.state.tenant`, and the session beside it. A cookie that
    was in use is made anew, at most once a day. Answers 401 for one that was not made here, except
    where is_open says so: there it is as if there were none."""

    def __init__(
        self, app: ASGIApp, *, cookies: SessionCookies, is_open: Callable[[Scope], bool]
    ) -> None:
        self._app = app
        self._cookies = cookies
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            given = self._cookies.read(scope["headers"])
        except Unauthorized as error:
            if not self._is_open(scope):
                await error_response(error)(scope, receive, send)
                return
            given = None
        session = RequestSession(scope, self._cookies, given)
        scope.setdefault("state", {})[SESSION_STATE] = session
        is_renewed = session.cookie is not None
        await self._app(scope, receive, _marking(send, session) if is_renewed else send)


def _marking(send: Send, session: RequestSession) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start" and session.cookie is not None:
            MutableHeaders(scope=message)["Set-Cookie"] = session.cookie
        await send(message)

    return marked
