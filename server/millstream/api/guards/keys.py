"""Who may use the server: API keys, sent as `Authorization: Bearer KEY`, or as `X-Api-Key: KEY`, as
Anthropic's SDKs do; in both headers only if it is the same. A web page cannot give headers to a
WebSocket: it names the key as a subprotocol, as it does for OpenAI's Realtime API.

Rules: decided from the path that the router sees and these headers, before anything of the body is
read; every path needs a key unless it is listed as open; keys are known by their digests only, so
that neither the time of an answer nor a log line tells anything about them. Handlers find whose
request it is, by the key's digest in hexadecimal, as `request.state.tenant`: what is kept for
somebody is found again, whatever other keys come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.guards.limits import QUOTA_STATE
from millstream.api.wire.error_bodies import error_response
from millstream.api.wire.request_log import LABEL_STATE
from millstream.errors import Unauthorized
from millstream.quotas.key_ring import KeyRing

_KEY_PROTOCOL = "openai-insecure-api-key."
_REFUSAL = "this server needs a valid API key; send it as 'Authorization: Bearer KEY'"

_HEADERS = (b"authorization", b"x-api-key")


class RequireKey:
    """Answers 401 for requests without one of the keys. is_open: whether it needs none."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing, is_open: Callable[[Scope], bool]) -> None:
        self._app = app
        self._keys = keys
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        digest = self._digest(scope)
        quota = None if digest is None else self._keys.find(digest)
        if digest is not None and quota is not None:
            state = scope.setdefault("state", {})
            state |= {"tenant": digest.hex(), QUOTA_STATE: quota}
            if quota.label:
                state[LABEL_STATE] = quota.label
        if self._is_open(scope) or quota is not None:
            await self._app(scope, receive, send)
        else:
            await error_response(Unauthorized(_REFUSAL))(scope, receive, send)

    @staticmethod
    def _digest(scope: Scope) -> bytes | None:
        """The digest of the key that was sent, if one was and only one."""
        given = [header for header in scope["headers"] if header[0] in _HEADERS]
        tokens = {_token(name, value) for name, value in given}
        tokens |= set(_protocol_tokens(scope))
        if len(tokens) != 1 or len(given) > len(dict(given)):
            return None
        token = tokens.pop()
        return None if token is None else sha256(token).digest()


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
