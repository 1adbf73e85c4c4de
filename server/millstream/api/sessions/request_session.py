"""The session of one request, as its handler sees it."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from millstream.api.sessions.cookies import (
    GivenSession,
    SessionCookies,
    new_session_name,
    owner_of_session,
)
from millstream.api.wire.resuming import SESSION_STATE


class RequestSession:
    """A session that was given, or may be begun. Whoever owns it is `request.state.tenant`.

    cookie: the header that the answer is to have, if any. Handlers put it into their answer by
    `mark()`: to look at all that is sent would cost each token of every stream.
    """

    def __init__(self, scope: Scope, cookies: SessionCookies, given: GivenSession | None) -> None:
        self._scope = scope
        self._cookies = cookies
        self._is_secure = scope.get("scheme") in ("https", "wss")
        self.name = None if given is None else given.name
        self.cookie: str | None = None
        if given is not None:
            self._own(given.name)
            if given.is_due:
                self.cookie = cookies.header(given.name, is_secure=self._is_secure)

    def begin(self) -> bool:
        """Begins one if there is none. Returns whether it did."""
        if self.name is not None:
            return False
        self.name = new_session_name()
        self._own(self.name)
        self.cookie = self._cookies.header(self.name, is_secure=self._is_secure)
        return True

    def forget(self) -> None:
        """Lets the browser forget it; what is stored in it stays."""
        self.cookie = self._cookies.forgetting(is_secure=self._is_secure)

    def mark(self, response: Response) -> Response:
        """The answer, with the cookie that it is to have."""
        if self.cookie is not None:
            response.headers["Set-Cookie"] = self.cookie
            self.cookie = None
        return response

    def _own(self, name: str) -> None:
        self._scope.setdefault("state", {})["tenant"] = owner_of_session(name)


def session_of(http: HTTPConnection) -> RequestSession | None:
    """The session of a request; None where its owner is known by something else, like a key."""
    found = getattr(http.state, SESSION_STATE, None)
    return found if isinstance(found, RequestSession) else None
