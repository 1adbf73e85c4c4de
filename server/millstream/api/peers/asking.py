"""What one HTTP worker asks the others for, on behalf of a client's request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from starlette.requests import Request as HttpRequest

from millstream.api.peers.exchange import PeerGone
from millstream.api.peers.forwarded_headers import headers_without_body
from millstream.api.peers.peers import Peers, not_responding

_DONE, _UNKNOWN = 200, 404


async def does_any(peers: Peers, numbers: Sequence[int], http: HttpRequest, *, path: str) -> bool:
    """Whether any of these workers knows what a POST to the path is about, and has done it.

    path: as it is described. Raises WorkerUnavailable if none has, and not all could be asked.
    """
    asking = (_post(peers, number, http, path) for number in numbers)
    said = await asyncio.gather(*asking, return_exceptions=True)
    if _DONE in said:
        return True
    for one in said:
        if isinstance(one, BaseException):
            raise one
        if one != _UNKNOWN:
            raise not_responding()
    return False


async def _post(peers: Peers, number: int, http: HttpRequest, path: str) -> int:
    """The status of the answer to a request without a body, for whoever asks here."""
    exchange = await peers.connect(number)
    target = quote(http.scope["root_path"] + path).encode()
    try:
        with suppress(OSError):
            await exchange.send_head("POST", target, headers_without_body(http))
            await exchange.send_end()
        head = await exchange.head()
        async for _ in exchange.body():
            pass
    except PeerGone as error:
        raise not_responding() from error
    finally:
        exchange.close()
    return head.status_code
