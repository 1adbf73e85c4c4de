"""Reading a JSON body without trusting it.

Rules: size is refused by header before a byte is read, and again while reading; only JSON is
accepted, strictly (UTF-8, finite numbers, no lone surrogates), and declared as such where a browser
may have sent it; a client that stops sending does not hold a connection for ever. What is large is
parsed and checked beside the event loop, and of what is parsed in one call, which keeps the
interpreter, there is a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from millstream.api.wire.request_log import CLIENT_LEFT
from millstream.errors import (
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)
from millstream.workers.threads import WorkerThreads

T = TypeVar("T")

_BODY_SECONDS = 30.0
LARGE_BYTES = 64 * 1024
"""What is larger is not parsed or checked on the event loop."""
_MAX_CONTAINERS = 100_000
# What a client sends that was told nothing of types: none, or that of `curl -d`.
_UNDECLARED = ("", "application/x-www-form-urlencoded")


async def read_json(
    request: Request, *, limit: int, check: Callable[[dict[str, Any]], T], threads: WorkerThreads
) -> T:
    """What `check` makes of the JSON object in the body. threads: where, if it is large.

    Raises InvalidRequest or one of its subclasses, and whatever `check` does.
    """
    _check_headers(request, limit=limit)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await _read(request, limit=limit)
    except TimeoutError as error:
        raise RequestTimeout(f"the body did not arrive within {_BODY_SECONDS:.0f} s") from error
    except ClientDisconnect as error:
        raise InvalidRequest(
            "the client left before the body was complete", code=CLIENT_LEFT
        ) from error
    return await checked_object(body, check=check, threads=threads)


async def checked_object(
    body: bytes, *, check: Callable[[dict[str, Any]], T], threads: WorkerThreads
) -> T:
    """What `check` makes of the JSON object that these bytes are. Raises as `read_json` does."""
    if len(body) < LARGE_BYTES:
        return check(_parse(body))
    return await threads.run(lambda: check(_parse(body)))


def _parse(body: bytes) -> dict[str, Any]:
    # The first count takes brackets in strings for more; nearly always it is enough.
    is_dense = _num_brackets(body) > _MAX_CONTAINERS
    if is_dense and _num_brackets(_without_strings(body)) > _MAX_CONTAINERS:
        raise InvalidRequest(
            f"the body has more than {_MAX_CONTAINERS} lists and objects", code="invalid_json"
        )
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(content, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return content


def _num_brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _without_strings(text: bytes) -> bytes:
    """What of JSON is outside of its strings."""
    return b"".join(text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def _check_headers(request: Request, *, limit: int) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip()
    # Names of types and codings have no case (RFC 9110, 8.3.1 and 8.4.1).
    media_type = given.lower()
    is_declared = media_type == "application/json" or media_type.endswith("+json")
    is_harmless = media_type in _UNDECLARED and not _may_be_from_browser(request)
    if not is_declared and not is_harmless:
        raise UnsupportedMediaType(
            f"the body must be JSON, not {given or 'undeclared'}; "
            "send 'Content-Type: application/json'"
        )
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("compressed bodies are not accepted")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise PayloadTooLarge(f"the body has {length} bytes, more than the limit of {limit}")


def _may_be_from_browser(request: Request) -> bool:
    """Whether a page may have caused it: browsers say so, and pages cannot keep them from it."""
    return any(name == "origin" or name.startswith("sec-fetch-") for name in request.headers)


async def _read(request: Request, *, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise PayloadTooLarge(f"the body has more than the limit of {limit} bytes")
    return bytes(body)
