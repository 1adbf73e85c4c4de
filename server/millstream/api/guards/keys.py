"""Who may use the server: API keys, sent as `Authorization: Bearer KEY`, or as `X-Api-Key: KEY`, as
Anthropic's SDKs do; in both headers only if it is the same. A web page cannot give headers to a
WebSocket: it names the key as a subprotocol, as it does for OpenAI's Realtime API.

Rules: decided from the path that the router sees and these headers, before anything of the body is
read; every path needs a key unless it is listed as open; all keys are compared in full, as
digests, so that neither the time of an answer nor a log line tells anything about them. Handlers
find whose request it is, by the key's digest in hexadecimal, as `request.state.tenant`: what is
kept for somebody is found again, whatever other keys come and go.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.wire.error_bodies import error_response
from millstream.errors import Unauthorized

_KEY_PROTOCOL = "openai-insecure-api-key."
_REFUSAL = "this server needs a valid API key; send it as 'Authorization: Bearer KEY'"

_HEADERS = (b"authorization", b"x-api-key")


class RequireKey:
    """Answers 401 for requests without one of the keys. is_open: whether it needs none."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[SecretStr], is_open: Callable[[Scope], bool]
    ) -> None:
        self._app = app
        self._digests = [_digest(key.get_secret_value().encode()) for key in keys]
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key(scope)
        if key is not None:
            scope.setdefault("state", {})["tenant"] = key.hex()
        if self._is_open(scope) or key is not None:
            await self._app(scope, receive, send)
        else:
            await error_response(Unauthorized(_REFUSAL))(scope, receive, send)

    def _key(self, scope: Scope) -> bytes | None:
        """The digest of the key that was sent, if it is one of those that are known."""
        given = [header for header in scope["headers"] if header[0] in _HEADERS]
        tokens = {_token(name, value) for name, value in given}
        tokens |= set(_protocol_tokens(scope))
        if len(tokens) != 1 or len(given) > len(dict(given)):
            return None
        token = tokens.pop()
        digest = _digest(token or b"")
        # Intentional: a list, because a generator would stop at the first match.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest if token is not None and any(matches) else None


def _token(name: bytes, value: bytes) -> bytes | None:
    """The key in one of the headers; None for another scheme than Bearer."""
    if name == b"x-api-key":
        return value.strip()
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


def _protocol_tokens(scope: Scope) -> Iterator[bytes]:
    """The keys among the subprotocols of a WebSocket."""
    for name in scope.get("subprotocols", ()):
        if name.startswith(_KEY_PROTOCOL):
            yield name.removeprefix(_KEY_PROTOCOL).encode("latin-1", "replace")


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
