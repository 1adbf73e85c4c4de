"""The cookie that names a session: random letters, signed, so that nobody can guess or make one."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import sha256

from itsdangerous import BadSignature, Signer
from starlette.requests import cookie_parser

from millstream.errors import Unauthorized

PATH = "/v1/sessions"
"""The path where sessions are begun, whatever cookie the browser has."""
NAME = "millstream_session"
_SECONDS = 365 * 24 * 3600


class SessionCookies:
    """Makes and reads them. secret: what they are signed with."""

    def __init__(self, secret: bytes) -> None:
        self._signer = Signer(secret, salt=NAME, digest_method=sha256)

    def make(self) -> str:
        """The value of a new one."""
        return self._signer.sign(secrets.token_hex(16)).decode()

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The session of a request; None if it names none.

        Raises Unauthorized for a cookie that was not made here: what is said under it would be
        nobody's, though its sender believes otherwise.
        """
        values = [value.decode("latin-1") for name, value in headers if name == b"cookie"]
        given = cookie_parser("; ".join(values)).get(NAME)
        if given is None:
            return None
        try:
            return self._signer.unsign(given).decode()
        except BadSignature as error:
            raise Unauthorized(
                "this session is not known here; POST /v1/sessions begins one",
                code="invalid_session",
            ) from error


def owner_of_session(session: str) -> str:
    """Who owns what is stored in a session, in the form of the digest of a key."""
    return sha256(f"session {session}".encode()).hexdigest()


def set_cookie(value: str, *, path: str, is_secure: bool) -> str:
    """The header that lets a browser keep it for a year; an empty value lets it forget.

    Pages cannot read it, and those of other sites cannot send it with what changes anything.
    """
    seconds = _SECONDS if value else 0
    parts = [f"{NAME}={value}", f"Max-Age={seconds}", f"Path={path}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if is_secure else parts)
