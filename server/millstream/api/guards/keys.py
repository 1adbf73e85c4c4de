"""Who may use the server: API keys, sent as `Authorization: Bearer KEY`.

Rules: decided from the path that the router sees and one header, before anything of the body is
read; every path needs a key unless it is listed as open; all keys are compared in full, as
digests, so that neither the time of an answer nor a log line tells anything about them. Handlers
find whose request it is, by the key's digest in hexadecimal, as `request.state.tenant`: what is
kept for somebody is found again, whatever other keys come and go.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from hashlib import sha256

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.wire.error_bodies import error_response
from millstream.errors import Unauthorized

_REFUSAL = "this server needs a valid API key; send it as 'Authorization: Bearer KEY'"


class RequireKey:
    """Answers 401 for requests without one of the keys. open_paths: those that need none."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[SecretStr], open_paths: Collection[str]
    ) -> None:
        self._app = app
        self._digests = [_digest(key.get_secret_value().encode()) for key in keys]
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key(scope)
        if key is not None:
            scope.setdefault("state", {})["tenant"] = key.hex()
        if scope["path"] in self._open_paths or key is not None:
            await self._app(scope, receive, send)
        else:
            await error_response(Unauthorized(_REFUSAL))(scope, receive, send)

    def _key(self, scope: Scope) -> bytes | None:
        """The digest of the key that was sent, if it is one of those that are known."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return None
        scheme, _, token = given[0].partition(b" ")
        digest = _digest(token.strip())
        # Intentional: a list, because a generator would stop at the first match.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest if scheme.lower() == b"bearer" and any(matches) else None


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
