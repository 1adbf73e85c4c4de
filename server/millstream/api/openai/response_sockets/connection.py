"""One connection over which responses are asked for.

Rules: what runs when the client leaves is cancelled, unless its answers were to go on without it; a
response that was not stored can be gone on from here, until going on from it fails for a reason
that stays.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from starlette.requests import HTTPConnection

from millstream.api.context import ServerContext
from millstream.api.openai.response_sockets.client_events import (
    CreateEvent,
    SteerEvent,
    client_event,
)
from millstream.api.openai.response_sockets.server_events import (
    error_text,
    event_texts,
    not_steered_text,
)
from millstream.api.openai.responses.maker import Asker, BegunResponse, ResponseMaker
from millstream.api.openai.responses.recent import RecentResponses
from millstream.api.sockets.connection import SocketConnection
from millstream.api.sockets.lanes import Lanes
from millstream.api.wire.json_body import LARGE_BYTES
from millstream.api.wire.owned_names import owned_name
from millstream.api.wire.request_log import RequestRecord
from millstream.api.wire.resuming import asks_to_resume
from millstream.api.wire.sockets import Socket
from millstream.errors import MillstreamError

PROTOCOLS = ("responses",)
"""Subprotocols that a page may offer beside its key, since a browser wants one to be chosen."""

_RECENT_SHARE = 4
"""The conversations that are kept for a connection, in bodies of the largest size."""


class ResponseConnection(SocketConnection[CreateEvent | SteerEvent, CreateEvent]):
    """Serves one client from its first event to its leaving."""

    def __init__(self, socket: Socket, *, context: ServerContext, maker: ResponseMaker) -> None:
        """Raises InvalidRequest for headers that ask for what there is not."""
        limit = context.settings.payload_limit
        lanes = Lanes(context.socket_answers, max_bytes=limit, field="stream_id")
        super().__init__(socket, context=context, lanes=lanes)
        self._maker = maker
        self._is_replayed = asks_to_resume(HTTPConnection(socket.scope))
        self._recent = RecentResponses(max_bytes=_RECENT_SHARE * limit)

    def _read(self, fields: dict[str, Any]) -> CreateEvent | SteerEvent:
        return client_event(fields)

    async def _take(self, event: CreateEvent | SteerEvent, size: int) -> None:
        if isinstance(event, SteerEvent):
            await self._socket.send(not_steered_text(event))
            return
        try:
            self._submit(event.stream_id, event, size)
        except MillstreamError as error:
            await self._refuse(error, event)

    def _error_text(self, error: MillstreamError, asked: CreateEvent | None) -> str:
        return error_text(error, stream_id=None if asked is None else asked.stream_id)

    async def _failure(
        self, asked: CreateEvent, size: int, record: RequestRecord
    ) -> MillstreamError | None:
        error = await super()._failure(asked, size, record)
        if error is not None:
            self._forget(asked, error)
        return error

    async def _respond(self, asked: CreateEvent, size: int, record: RequestRecord) -> None:
        if size < LARGE_BYTES:
            request, wants_answer = asked.checked()
        else:
            request, wants_answer = await self._context.workers.bodies.run(asked.checked)
        asker = Asker(
            owner=self._owner,
            names=(owned_name(self._owner, self._request_id),),
            is_replayed=self._is_replayed,
            has_reader=True,
            recent=self._recent,
            wants_answer=wants_answer,
        )
        place = self._maker.take_place(request, asker)
        begun = await self._maker.begin(request, asker, place)
        record.respond(200)
        record.begin(begun.answer.facts)
        try:
            async with aclosing(begun.run.events.read()) as events:
                is_kept = False
                async for frames in events:
                    if begun.run.events.is_complete and not is_kept:
                        # Before its end is sent: the client may go on in another lane at once.
                        self._keep(begun, asked)
                        is_kept = True
                    for text in event_texts(frames, stream_id=asked.stream_id):
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
