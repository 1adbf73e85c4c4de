"""Which headers go with a forwarded request, and which come back with its answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request as HttpRequest

from millstream.api.peers.exchange import Headers
from millstream.api.wire.forwarded import CLIENT_HEADER, FAILURE_HEADER, client_header

_OF_ONE_CONNECTION = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
}
"""RFC 9110, section 7.6.1, without `Transfer-Encoding`: bodies are framed again as they were."""
_ALWAYS_SENT = {b"host", b"content-length", b"transfer-encoding"}
"""What a client cannot take out by naming it in `Connection`."""
_SAID_ANEW = {b"expect", b"x-request-id", CLIENT_HEADER}
"""Of a request: what the first worker has answered, or says in its own words."""
_ADDED_AGAIN = {b"date", b"transfer-encoding", b"vary", FAILURE_HEADER}
"""Of an answer: what the first worker adds in any case. Routes that are forwarded vary nothing."""
_OF_A_BODY = {b"content-length", b"content-type", b"transfer-encoding"}


def request_headers(http: HttpRequest) -> Headers:
    """The headers of a request as another worker is to see it."""
    given: Headers = http.scope["headers"]
    named = {
        token.strip().lower()
        for name, value in given
        if name == b"connection"
        for token in value.split(b",")
    }
    left_out = (named - _ALWAYS_SENT) | _OF_ONE_CONNECTION | _SAID_ANEW
    headers = _without(given, left_out)
    if all(name != b"host" for name, _ in headers):  # HTTP/1.0, and was let in without
        headers.append((b"host", b"localhost"))
    request_id: str = http.state.request_id
    return [
        *headers,
        (b"x-request-id", request_id.encode()),
        (CLIENT_HEADER, client_header(http.scope)),
        (b"connection", b"close"),
    ]


def headers_without_body(http: HttpRequest) -> Headers:
    """Headers of a request without a body that is made on behalf of this one."""
    return _without(request_headers(http), _OF_A_BODY)


def answer_headers(given: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of another worker's answer as its client is to see them."""
    return _without(given, _OF_ONE_CONNECTION | _ADDED_AGAIN)


def _without(
    headers: Iterable[tuple[bytes, bytes]], names: set[bytes]
) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in names]
