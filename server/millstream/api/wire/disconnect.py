"""Noticing that the client of an unstreamed request has left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from millstream.api.wire.request_log import CLIENT_LEFT

T = TypeVar("T")

# What proxies log for this; nobody is there to read it.
_CLIENT_GONE = 499


class ClientGone(Exception):
    """The client closed the connection before it was answered."""


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end, or cancels it and raises ClientGone when the client leaves.

    Starlette cancels streaming responses by itself; a plain handler runs on unless it asks.
    The body must have been read: what arrives on the channel after it is the disconnect.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_disconnect(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        watching.result()  # should it have failed, that is not the client's leaving
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def nobody(http: Request) -> Response:
    """The response to a client that has left."""
    http.state.record.ending = CLIENT_LEFT
    return Response(status_code=_CLIENT_GONE)
