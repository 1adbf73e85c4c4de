"""One connection over which answers are asked for, whatever its messages look like.

Rules: whatever a client sends, it gets an answer or an error that leaves the connection open; every
answer that was asked for has its line in the log; what runs when the client leaves is cancelled; a
client that asks for nothing for --socket-idle-seconds is closed.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.requests import HTTPConnection

from millstream.api.context import ServerContext
from millstream.api.sockets.lanes import Lanes
from millstream.api.wire.json_body import checked_object
from millstream.api.wire.request_log import CLIENT_LEFT, RequestRecord, log_prompt
from millstream.api.wire.resuming import owner_of
from millstream.api.wire.sockets import Socket, SocketGone
from millstream.errors import InvalidRequest, MillstreamError, PayloadTooLarge

log = logging.getLogger(__name__)

_METHOD = "WS"
"""What an answer's line in the log has in the place of a method."""
_NORMAL = 1000

Event = TypeVar("Event")
Asked = TypeVar("Asked")


class SocketConnection(ABC, Generic[Event, Asked]):
    """Serves one client from its first message to its leaving.

    Event: what a message is, once it is read. Asked: those events that ask for an answer.
    """

    def __init__(self, socket: Socket, *, context: ServerContext, lanes: Lanes) -> None:
        connection = HTTPConnection(socket.scope)
        self._socket = socket
        self._context = context
        self._lanes = lanes
        self._limit = context.settings.payload_limit
        self._owner = owner_of(connection)
        self._request_id: str = connection.state.request_id
        self._route: str = connection.state.record.route

    async def run(self) -> None:
        """Serves the client. Ends with SocketGone."""
        try:
            while True:
                message = await self._receive()
                try:
                    await self._take_message(message)
                except MillstreamError as error:
                    await self._refuse(error)
        finally:
            await self._lanes.stop()

    @abstractmethod
    def _read(self, fields: dict[str, Any]) -> Event:
        """The event that a message is; pure. Raises InvalidRequest."""

    @abstractmethod
    async def _take(self, event: Event, size: int) -> None:
        """Does what an event wants, or submits it. Raises MillstreamError."""

    @abstractmethod
    async def _respond(self, asked: Asked, size: int, record: RequestRecord) -> None:
        """Sends the answer. Raises MillstreamError for one that could not be begun."""

    @abstractmethod
    def _error_text(self, error: MillstreamError, asked: Asked | None) -> str:
        """The message that says what went wrong. asked: with what, if that is known."""

    def _read_logged(self, fields: dict[str, Any]) -> Event:
        log_prompt(fields, request_id=self._request_id)
        return self._read(fields)

    def _submit(self, lane: object, asked: Asked, size: int) -> None:
        """Answers it in its turn. Raises as `Lanes.submit()` does."""
        self._lanes.submit(lane, partial(self._answer, asked, size), size=size)

    async def _refuse(self, error: MillstreamError, asked: Asked | None = None) -> None:
        record = self._record()
        _note(record, error)
        record.write()
        await self._socket.send(self._error_text(error, asked))

    async def _receive(self) -> str | bytes:
        loop = asyncio.get_running_loop()
        began, limit = loop.time(), self._context.settings.socket_idle_seconds
        while True:
            left = max(began, self._lanes.quiet_since) + limit - loop.time()
            if left <= 0:
                await self._socket.close(_NORMAL, reason=f"idle for {limit:g} s")
                raise SocketGone
            try:
                async with asyncio.timeout(left):
                    return await self._socket.receive()
            except TimeoutError:
                pass

    async def _take_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            raise InvalidRequest("a message must be a text frame, not binary", code="invalid_json")
        content = message.encode()
        if len(content) > self._limit:
            raise PayloadTooLarge(
                f"the message has {len(content)} bytes, more than the limit of {self._limit}"
            )
        threads = self._context.workers.bodies
        check = self._read_logged if self._context.settings.log_prompts else self._read
        event = await checked_object(content, check=check, threads=threads)
        await self._take(event, len(content))

    async def _answer(self, asked: Asked, size: int) -> None:
        record = self._record()
        try:
            error = await self._failure(asked, size, record)
            if error is not None:
                _note(record, error)
                await self._socket.send(self._error_text(error, asked))
        except SocketGone:
            record.ending = CLIENT_LEFT
            raise
        finally:
            record.write()

    async def _failure(
        self, asked: Asked, size: int, record: RequestRecord
    ) -> MillstreamError | None:
        """Answers. What kept an answer from being begun, if it was not."""
        try:
            await self._respond(asked, size, record)
        except MillstreamError as error:
            return error
        except SocketGone:
            raise
        except Exception:
            log.exception("an answer over a WebSocket has failed")
            return MillstreamError("the server failed to handle this request")
        return None

    def _record(self) -> RequestRecord:
        scope = {**self._socket.scope, "method": _METHOD}
        record = RequestRecord(
            scope,
            request_id=self._request_id,
            is_probe=False,
            metrics=self._context.http_metrics,
            trace=self._context.trace,
        )
        record.route, record.is_for_answer = self._route, True
        return record


def _note(record: RequestRecord, error: MillstreamError) -> None:
    record.respond(error.status)
    record.fail(error)
