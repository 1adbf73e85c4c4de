"""Reading a JSON body without trusting it.

Rules: size is refused by header before a byte is read, and again while reading; only JSON is
accepted, strictly (UTF-8, finite numbers, no lone surrogates); a client that stops sending does
not hold a connection for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from millstream.errors import (
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

_BODY_SECONDS = 30.0


async def read_json(request: Request, *, limit: int) -> dict[str, Any]:
    """The JSON object in the body. Raises InvalidRequest or one of its subclasses."""
    _check_headers(request, limit=limit)
    try:
        body = await asyncio.wait_for(_read(request, limit=limit), timeout=_BODY_SECONDS)
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise RequestTimeout(f"the body did not arrive within {_BODY_SECONDS:.0f} s") from error
    except ClientDisconnect as error:
        raise InvalidRequest("the client left before the body was complete") from error
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(content, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return content


def _check_headers(request: Request, *, limit: int) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip()
    # Names of types and codings have no case (RFC 9110, 8.3.1 and 8.4.1).
    media_type = given.lower()
    if media_type not in ("", "application/json") and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"the body must be JSON, not {given}; send 'Content-Type: application/json'"
        )
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("compressed bodies are not accepted")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise PayloadTooLarge(f"the body has {length} bytes, more than the limit of {limit}")


async def _read(request: Request, *, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise PayloadTooLarge(f"the body has more than the limit of {limit} bytes")
    return bytes(body)
