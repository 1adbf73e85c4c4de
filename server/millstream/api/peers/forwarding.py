"""Requests that name an answer by its id, forwarded to the HTTP worker that makes it.

Rules: forwarded is what has passed the guards here and has found its route; the other worker guards
it again. Bodies go both ways as they come. A client that leaves ends the forwarded request. What
was forwarded to this worker is answered here.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import h11
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millstream.api.described.route import EVENTS, Handler
from millstream.api.peers.exchange import Exchange, PeerGone
from millstream.api.peers.forwarded_headers import answer_headers, request_headers
from millstream.api.peers.peers import Peers, not_responding
from millstream.api.wire.disconnect import nobody
from millstream.api.wire.error_bodies import error_event
from millstream.api.wire.forwarded import FAILURE_HEADER, is_forwarded, read_failure
from millstream.api.wire.request_log import record_of
from millstream.errors import WorkerUnavailable

_EVENT_END = b"\n\n"


def where_it_is_made(peers: Peers | None, handler: Handler) -> Handler:
    """The handler of a route whose path has the id of an answer, for requests to whichever worker.

    peers: None for a server of one process. Raises WorkerUnavailable.
    """
    if peers is None:
        return handler

    async def answer(http: HttpRequest) -> Response:
        number = None if is_forwarded(http.scope) else peers.other_maker(http.path_params["id"])
        if number is None:
            return await handler(http)
        return await _forward(http, peers, number)

    return answer


async def _forward(http: HttpRequest, peers: Peers, number: int) -> Response:
    """The answer of another worker, of which the head has arrived. Raises WorkerUnavailable."""
    task: asyncio.Task[Any] | None = asyncio.current_task()
    assert task is not None, "a request has a task"
    peers.forwarding.add(task)
    task.add_done_callback(peers.forwarding.discard)
    exchange = await peers.connect(number)
    sending = asyncio.create_task(_send_all(http, exchange))
    try:
        head = await exchange.head()
    except PeerGone as error:
        has_left = sending.done()
        await _end(exchange, sending)
        if has_left:
            return nobody(http)
        raise not_responding() from error
    except BaseException:
        await _end(exchange, sending)
        raise
    return ForwardedAnswer(head, exchange, sending)


async def _send_all(http: HttpRequest, exchange: Exchange) -> None:
    """Sends the request as it comes, then waits for the client to leave, and leaves as well.

    A worker that is gone is no concern of the sender's: the reader of its answer is told.
    """
    scope = http.scope
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    with suppress(OSError):
        await exchange.send_head(scope["method"], target, request_headers(http))
    is_sent = False
    while (message := await http.receive())["type"] != "http.disconnect":
        with suppress(OSError):
            if piece := message.get("body"):
                await exchange.send_body(piece)
            if not message.get("more_body") and not is_sent:
                is_sent = True
                await exchange.send_end()
    exchange.close()


async def _end(exchange: Exchange, sending: asyncio.Task[None]) -> None:
    """Closes the connection and stops waiting for the client. Raises what sending has raised."""
    exchange.close()
    sending.cancel()
    await asyncio.wait([sending])
    if not sending.cancelled():
        sending.result()


class ForwardedAnswer(Response):
    """An answer that another worker gives, passed on as it comes.

    sending: sends the request, and is done when the client has left.
    """

    def __init__(self, head: h11.Response, exchange: Exchange, sending: asyncio.Task[None]) -> None:
        super().__init__(status_code=head.status_code)
        self.raw_headers = answer_headers(head.headers)
        self._failure = dict(head.headers).get(FAILURE_HEADER)
        self._exchange, self._sending = exchange, sending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._pass_on(scope, send)
        finally:
            await _end(self._exchange, self._sending)

    async def _pass_on(self, scope: Scope, send: Send) -> None:
        record = record_of(scope)
        assert record is not None, "forwarding is inside of what keeps records"
        if self._failure is not None:
            record.fail(read_failure(self._failure))
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        ends_with = b""
        try:
            async with aclosing(self._exchange.body()) as pieces:
                async for piece in pieces:
                    ends_with = (ends_with + piece)[-len(_EVENT_END) :]
                    await _send_piece(send, piece, is_last=False)
        except PeerGone:
            if self._sending.done():
                return  # it was the client who left
            record.ending = WorkerUnavailable.code
            if not self._is_between_events(ends_with):
                return  # the connection is closed over an answer that is not whole
            await _send_piece(send, error_event(not_responding()), is_last=False)
        await _send_piece(send, b"", is_last=True)

    def _is_between_events(self, ends_with: bytes) -> bool:
        is_stream = self.headers.get("content-type", "").startswith(EVENTS)
        return is_stream and ends_with in (b"", _EVENT_END)


async def _send_piece(send: Send, piece: bytes, *, is_last: bool) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
