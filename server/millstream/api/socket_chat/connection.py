"""One connection over which messages are answered, many at once.

Rules: every message has one last frame, its end or an error; messages of one conversation are
answered in the order in which they came, as are those of one id, so that no two answers mix; a
message that is said by itself is kept nowhere. What a client has asked for and not got is bounded,
in number and in bytes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from millstream.api.context import ServerContext
from millstream.api.openai.responses.maker import Asker, BegunResponse, Place, ResponseMaker
from millstream.api.socket_chat.client_frames import (
    NEW,
    ClientFrame,
    SaidIn,
    client_frame,
    in_words_of_frames,
)
from millstream.api.socket_chat.places import SocketPlaces
from millstream.api.socket_chat.server_frames import (
    cancelled_text,
    error_text,
    final_text,
    opening_text,
    piece_of,
    piece_text,
)
from millstream.api.sockets.connection import SocketConnection
from millstream.api.sockets.lanes import Lanes
from millstream.api.wire.json_body import LARGE_BYTES
from millstream.api.wire.owned_names import owned_name
from millstream.api.wire.request_log import RequestRecord
from millstream.api.wire.sockets import Socket
from millstream.errors import InvalidRequest, MillstreamError, Overloaded, RequestCancelled
from millstream.intake.responses.request import ResponseRequest

_MAX_MESSAGES = 256
"""What one client may have asked for and not got."""
_BYTES_SHARE = 4
"""How large that may be, in bodies of the largest size."""


@dataclass(slots=True, eq=False)
class Message:
    """A message until its last frame is sent. name: what its answer can be cancelled by.

    is_begun: its turn has come.
    """

    frame: ClientFrame
    said_in: SaidIn | None
    name: str
    size: int
    is_begun: bool = False
    is_cancelled: bool = False


class ChatConnection(SocketConnection[ClientFrame, Message]):
    """Serves one client from its first frame to its leaving."""

    def __init__(
        self,
        socket: Socket,
        *,
        context: ServerContext,
        maker: ResponseMaker,
        places: SocketPlaces,
        said_in: SaidIn | None,
    ) -> None:
        """said_in: what is meant where a message names nothing."""
        self._max_bytes = _BYTES_SHARE * context.settings.payload_limit
        lanes = Lanes(
            context.socket_answers, max_bytes=self._max_bytes, max_lanes=_MAX_MESSAGES, field="id"
        )
        super().__init__(socket, context=context, lanes=lanes)
        self._maker = maker
        self._places = places
        self._said_in = said_in
        self._messages: set[Message] = set()
        self._turns: WeakValueDictionary[int | str, asyncio.Lock] = WeakValueDictionary()

    def _read(self, fields: dict[str, Any]) -> ClientFrame:
        return client_frame(fields)

    async def _take(self, event: ClientFrame, size: int) -> None:
        message = Message(event, None, f"ws_{secrets.token_hex(16)}", size)
        try:
            if event.is_cancel():
                await self._cancel(event.id)
                return
            message.said_in = event.said_in(self._said_in)
            self._accept(message)
        except (InvalidRequest, Overloaded) as error:
            await self._refuse(error, message)

    def _accept(self, message: Message) -> None:
        """Puts it where its turn comes. Raises Overloaded."""
        num_bytes = sum(each.size for each in self._messages) + message.size
        if len(self._messages) >= _MAX_MESSAGES or num_bytes > self._max_bytes:
            raise Overloaded(
                "too many messages of this connection wait for their answers; send less ahead",
                code="websocket_queue_full",
            )
        said_in = message.said_in
        is_alone = said_in is None or said_in.id == NEW
        lane = ("message", message.frame.id) if is_alone else said_in
        self._submit(lane, message, message.size)
        self._messages.add(message)

    async def _cancel(self, identifier: int | str) -> None:
        """Ends what is made for this id. There may be nothing: an end has passed it on its way."""
        for message in [each for each in self._messages if each.frame.id == identifier]:
            if message.is_cancelled:
                continue
            message.is_cancelled = True
            if message.is_begun:
                self._context.engine.cancel(message.name)
            else:
                await self._socket.send(cancelled_text(identifier))

    def _error_text(self, error: MillstreamError, asked: Message | None) -> str:
        return error_text(error, None if asked is None else asked.frame.id)

    async def _answer(self, asked: Message, size: int) -> None:
        turn = self._turns.setdefault(asked.frame.id, asyncio.Lock())
        try:
            async with turn:
                await super()._answer(asked, size)
        finally:
            self._messages.discard(asked)

    async def _respond(self, asked: Message, size: int, record: RequestRecord) -> None:
        if asked.is_cancelled:
            _note_cancelled(record)  # its client has been told
            return
        asked.is_begun = True
        try:
            begun = await self._begin(asked, size)
        except RequestCancelled:
            _note_cancelled(record)
            await self._socket.send(cancelled_text(asked.frame.id))
            return
        record.respond(200)
        record.begin(begun.answer.facts)
        try:
            await self._send_answer(asked.frame.id, begun)
        finally:
            begun.run.cancel()

    async def _begin(self, asked: Message, size: int) -> BegunResponse:
        found = await self._places.find(asked.said_in)
        check = partial(asked.frame.checked, found.fields, settings=found.settings)
        request = check() if size < LARGE_BYTES else await self._context.workers.bodies.run(check)
        if asked.is_cancelled:  # while it was read
            raise RequestCancelled("the message was cancelled")
        asker = Asker(
            owner=found.owner,
            names=(owned_name(found.owner, self._request_id), asked.name),
            is_replayed=False,
            has_reader=True,
            chat_id=found.chat_id,
        )
        place = self._maker.take_place(request, asker)
        # Beside the first frame: what a client does not read keeps no place waiting.
        making = asyncio.create_task(self._make(request, asker, place, found.write))
        try:
            await self._socket.send(opening_text(asked.frame.id, found.shown))
            return await making
        except BaseException:
            making.cancel()
            making.add_done_callback(partial(_end_made, place))
            raise

    async def _make(
        self,
        request: ResponseRequest,
        asker: Asker,
        place: Place,
        write: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> BegunResponse:
        """Begins the response, and what begins with it."""
        if write is not None:
            try:
                await place.stream.prepare(write())
            except BaseException:
                place.stream.close()
                raise
        try:
            return await self._maker.begin(request, asker, place)
        except InvalidRequest as error:
            raise in_words_of_frames(error) from error

    async def _send_answer(self, identifier: int | str, begun: BegunResponse) -> None:
        pause = self._context.settings.time_between_chunks
        async with aclosing(begun.run.events.read()) as events:
            async for frames in events:
                piece = piece_of(frames)
                if any(piece):
                    await self._socket.send(piece_text(identifier, piece))
                    if pause and not begun.run.events.is_complete:
                        await _pause(begun, pause)
        failure = begun.answer.failure
        await self._socket.send(
            final_text(identifier, begun.run.snapshot())
            if failure is None
            else error_text(failure, identifier)
        )


def _note_cancelled(record: RequestRecord) -> None:
    error = RequestCancelled("the message was cancelled")
    record.respond(error.status)
    record.fail(error)


async def _pause(begun: BegunResponse, seconds: float) -> None:
    """Waits, but not beyond the end of the answer: nothing could be joined to what is there."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await begun.run.settled()


def _end_made(place: Place, making: asyncio.Task[BegunResponse]) -> None:
    """Ends a response whose client had left before it was begun."""
    if making.cancelled() or making.exception() is not None:
        place.stream.close()  # it may not have begun at all
    else:
        making.result().run.cancel()
