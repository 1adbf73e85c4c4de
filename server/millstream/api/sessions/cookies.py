"""The cookie that names a session: random letters, signed, so that nobody can guess or make one.

It ends when it was not used for long: the signature covers when it was made, and whoever uses it
gets one that was made now, at most once a day.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from itsdangerous import BadSignature, TimestampSigner
from starlette.requests import cookie_parser

from millstream.errors import Unauthorized

PATH = "/v1/sessions"
"""The path where sessions are begun, whatever cookie the browser has."""
NAME = "millstream_session"
_DAY = 86_400


class GivenSession(NamedTuple):
    """A session that a request names. is_due: its cookie is to be made anew."""

    name: str
    is_due: bool


class SessionCookies:
    """Makes and reads them. secret: what they are signed with. days: how long an unused one holds.

    path: where browsers send them. name: of the cookie, where there is another server's beside it.
    """

    def __init__(self, secret: bytes, *, days: float, path: str = "/", name: str = NAME) -> None:
        self._signer = TimestampSigner(secret, salt=NAME, digest_method=sha256)
        self._seconds = days * _DAY
        self._path = path
        self._name = name

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> GivenSession | None:
        """The session of a request; None if it names none, or one that has ended.

        Raises Unauthorized for a cookie that was not made here: what is said under it would be
        nobody's, though its sender believes otherwise.
        """
        values = [value.decode("latin-1") for name, value in headers if name == b"cookie"]
        given = cookie_parser("; ".join(values)).get(self._name)
        if given is None:
            return None
        try:
            name, made = self._signer.unsign(given, return_timestamp=True)
        except BadSignature as error:
            raise Unauthorized(
                "this session is not known here; POST /v1/sessions begins one",
                code="invalid_session",
            ) from error
        age = time.time() - made.timestamp()
        if age > self._seconds:
            return None
        return GivenSession(name.decode(), is_due=age >= min(_DAY, self._seconds / 2))

    def header(self, name: str, *, is_secure: bool) -> str:
        """What lets a browser keep a session from now on.

        Pages cannot read it, and those of other sites cannot send it with what changes anything.
        """
        value = self._signer.sign(name).decode()
        return self._set(value, seconds=int(self._seconds), is_secure=is_secure)

    def forgetting(self, *, is_secure: bool) -> str:
        """What lets a browser forget the session that it has."""
        return self._set("", seconds=0, is_secure=is_secure)

    def _set(self, value: str, *, seconds: int, is_secure: bool) -> str:
        where = [f"Max-Age={seconds}", f"Path={self._path}", "HttpOnly", "SameSite=Lax"]
        return "; ".join([f"{self._name}={value}", *where, *(["Secure"] if is_secure else [])])


def new_session_name() -> str:
    """Letters that nobody can guess."""
    return secrets.token_hex(16)


def owner_of_session(session: str) -> str:
    """Who owns what is stored in a session, in the form of the digest of a key."""
    return sha256(f"session {session}".encode()).hexdigest()
