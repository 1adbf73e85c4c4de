"""What a forwarded request has of its first worker."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive, Scope, Send

from millstream.api.wire.forwarded import (
    CLIENT_HEADER,
    ForwardedRequests,
    client_header,
    is_forwarded,
)


async def test_who_the_client_is_comes_along() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    for client in (("192.0.2.1", 5), None):
        first = {"client": client, "scheme": "https"}
        headers = [(b"a", b"b"), (CLIENT_HEADER, client_header(first))]
        scope = {"client": None, "scheme": "http", "headers": headers, "state": {"kept": 1}}
        await ForwardedRequests(app)(scope, nothing, nothing)
        assert not is_forwarded(scope)
        scope = seen.pop()
        assert (scope["client"], scope["scheme"]) == (client, "https")
        assert scope["headers"] == [(b"a", b"b")]
        assert scope["state"]["kept"] == 1
        assert is_forwarded(scope)
