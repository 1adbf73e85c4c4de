"""One connection over which responses are asked for.

Rules: whatever a client sends, it gets events, or an error that leaves the connection open; what
runs when it leaves is cancelled, unless its answers were to go on without it; a response that was
not stored can be gone on from here, until going on from it fails for a reason that stays.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from functools import partial

from starlette.requests import HTTPConnection

from millstream.api.context import ServerContext
from millstream.api.openai.response_sockets.client_events import (
    CreateEvent,
    SteerEvent,
    client_event,
)
from millstream.api.openai.response_sockets.lanes import Lanes
from millstream.api.openai.response_sockets.server_events import (
    error_text,
    event_texts,
    not_steered_text,
)
from millstream.api.openai.responses.maker import Asker, BegunResponse, ResponseMaker
from millstream.api.openai.responses.recent import RecentResponses
from millstream.api.wire.json_body import LARGE_BYTES, checked_object
from millstream.api.wire.request_log import CLIENT_LEFT, RequestRecord
from millstream.api.wire.resuming import asks_to_resume, owner_of
from millstream.api.wire.sockets import Socket, SocketGone
from millstream.errors import InvalidRequest, MillstreamError, PayloadTooLarge

log = logging.getLogger(__name__)

PROTOCOLS = ("responses",)
"""Subprotocols that a page may offer beside its key, since a browser wants one to be chosen."""

_METHOD = "WS"
"""What a response's line in the log has in the place of a method."""
_RECENT_SHARE = 4
"""The conversations that are kept for a connection, in bodies of the largest size."""


class ResponseConnection:
    """Serves one client from its first event to its leaving."""

    def __init__(self, socket: Socket, *, context: ServerContext, maker: ResponseMaker) -> None:
        """Raises InvalidRequest for headers that ask for what there is not."""
        connection = HTTPConnection(socket.scope)
        self._socket = socket
        self._context = context
        self._maker = maker
        self._owner = owner_of(connection)
        self._request_id: str = connection.state.request_id
        self._is_replayed = asks_to_resume(connection)
        self._limit = context.settings.payload_limit
        self._recent = RecentResponses(max_bytes=_RECENT_SHARE * self._limit)
        self._lanes = Lanes(max_bytes=self._limit)

    async def run(self) -> None:
        """Serves the client. Ends with SocketGone."""
        try:
            while True:
                message = await self._socket.receive()
                try:
                    await self._take(message)
                except MillstreamError as error:
                    await self._refuse(error)
        finally:
            await self._lanes.stop()

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            raise InvalidRequest("a message must be a text frame, not binary", code="invalid_json")
        content = message.encode()
        if len(content) > self._limit:
            raise PayloadTooLarge(
                f"the message has {len(content)} bytes, more than the limit of {self._limit}"
            )
        threads = self._context.workers.bodies
        event = await checked_object(content, check=client_event, threads=threads)
        if isinstance(event, SteerEvent):
            await self._socket.send(not_steered_text(event))
            return
        work = partial(self._answer, event, len(content))
        try:
            self._lanes.submit(event.stream_id, work, size=len(content))
        except MillstreamError as error:
            await self._refuse(error, stream_id=event.stream_id)

    async def _refuse(self, error: MillstreamError, *, stream_id: str | None = None) -> None:
        record = self._record()
        _note(record, error)
        record.write()
        await self._socket.send(error_text(error, stream_id=stream_id))

    async def _answer(self, event: CreateEvent, size: int) -> None:
        record = self._record()
        try:
            error = await self._failure(event, size, record)
            if error is not None:
                _note(record, error)
                self._forget(event, error)
                await self._socket.send(error_text(error, stream_id=event.stream_id))
        except SocketGone:
            record.ending = CLIENT_LEFT
            raise
        finally:
            record.write()

    async def _failure(
        self, event: CreateEvent, size: int, record: RequestRecord
    ) -> MillstreamError | None:
        """Responds to the event. What kept a response from being begun, if it was not."""
        try:
            await self._respond(event, size, record)
        except MillstreamError as error:
            return error
        except SocketGone:
            raise
        except Exception:
            log.exception("a response over a WebSocket has failed")
            return MillstreamError("the server failed to handle this request")
        return None

    async def _respond(self, event: CreateEvent, size: int, record: RequestRecord) -> None:
        if size < LARGE_BYTES:
            request, wants_answer = event.checked()
        else:
            request, wants_answer = await self._context.workers.bodies.run(event.checked)
        asker = Asker(
            owner=self._owner,
            names=(self._request_id,),
            is_replayed=self._is_replayed,
            has_reader=True,
            recent=self._recent,
            wants_answer=wants_answer,
        )
        place = self._maker.take_place(request, asker)
        begun = await self._maker.begin(request, asker, place)
        record.respond(200)
        record.answer = begun.answer.facts
        try:
            async with aclosing(begun.run.events.read()) as events:
                is_kept = False
                async for frames in events:
                    if begun.run.events.is_complete and not is_kept:
                        # Before its end is sent: the client may go on in another lane at once.
                        self._keep(begun, event)
                        is_kept = True
                    for text in event_texts(frames, stream_id=event.stream_id):
                        await self._socket.send(text)
        finally:
            if not begun.run.is_replayed:
                begun.run.cancel()

    def _keep(self, begun: BegunResponse, event: CreateEvent) -> None:
        response, failure = begun.run.snapshot(), begun.answer.failure
        if failure is not None:
            self._forget(event, failure)
        elif not response["store"]:
            self._recent.keep(response["id"], [*begun.items, *response["output"]])

    def _forget(self, event: CreateEvent, error: MillstreamError) -> None:
        """Gives up what could not be gone on from, unless it is worth another try."""
        if event.previous_id is not None and error.retry_after is None:
            self._recent.drop(event.previous_id)

    def _record(self) -> RequestRecord:
        scope = {**self._socket.scope, "method": _METHOD}
        return RequestRecord(scope, request_id=self._request_id, is_probe=False)


def _note(record: RequestRecord, error: MillstreamError) -> None:
    record.respond(error.status)
    record.fail(error)
