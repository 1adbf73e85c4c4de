"""Who visits: the key under which a browser's history is kept.

Rules: a session of the application is used if it has one, FastSession's or Starlette's, and gets
nothing but the key; without one there is a signed cookie, made as that of `/v1/sessions`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from millstream.api.sessions.cookies import SessionCookies, new_session_name
from millstream.errors import Unauthorized

_KEY = "millstream_chat"


@dataclass(frozen=True, slots=True)
class Visit:
    """key: nobody can guess it. is_due: the browser has to be told."""

    key: str
    is_due: bool = False


class Visits:
    """Finds them. cookies: for applications without sessions."""

    def __init__(self, cookies: SessionCookies) -> None:
        self._cookies = cookies

    def find(self, request: Request) -> Visit | None:
        """The visit that has begun; None if none has."""
        session = _session_of(request)
        if session is not None:
            key = session.get(_KEY)
            return Visit(key) if isinstance(key, str) else None
        try:
            given = self._cookies.read(request.scope["headers"])
        except Unauthorized:
            return None
        return None if given is None else Visit(given.name, given.is_due)

    def find_or_begin(self, request: Request) -> Visit:
        found = self.find(request)
        if found is not None:
            return found
        key = new_session_name()
        session = _session_of(request)
        if session is None:
            return Visit(key, is_due=True)
        session[_KEY] = key
        return Visit(key)

    def tell(self, visit: Visit, request: Request, response: Response) -> None:
        """Lets the browser keep the visit, if it has to be told."""
        if visit.is_due:
            is_secure = request.url.scheme == "https"
            response.headers["Set-Cookie"] = self._cookies.header(visit.key, is_secure=is_secure)


def _session_of(request: Request) -> MutableMapping[str, Any] | None:
    get_session = getattr(getattr(request.state, "session", None), "get_session", None)
    if get_session is not None:
        session: MutableMapping[str, Any] = get_session()
        return session
    return request.scope.get("session")
