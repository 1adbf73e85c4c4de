"""One request to another HTTP worker, and its answer, over a connection of their own.

Rules: what has arrived of the answer is given at once, whatever comes after it. To close an
exchange is to leave: the other worker sees it as it sees a client that closes its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import h11

from millstream.api.wire.forwarded import GREETING

_READ_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 64 * 1024

Headers = Sequence[tuple[bytes, bytes]]


class PeerGone(Exception):
    """The other worker ended the connection before its answer was complete, or it was closed."""


class Exchange:
    """The client's side of HTTP/1.1 for one request. For one writing and one reading task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, _MAX_HEADER_BYTES)

    @classmethod
    async def connect(cls, path: str) -> Exchange:
        """A connection that a worker has accepted; waits until one does. Raises OSError or
        IncompleteReadError if there is none, or it ends."""
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            await reader.readexactly(len(GREETING))
        except BaseException:
            writer.transport.abort()
            raise
        return cls(reader, writer)

    async def send_head(self, method: str, target: bytes, headers: Headers) -> None:
        """Begins the request. target: path and query as they are on the wire."""
        await self._send(h11.Request(method=method, target=target, headers=list(headers)))

    async def send_body(self, piece: bytes) -> None:
        """Sends a piece of the body that the headers have announced."""
        await self._send(h11.Data(data=piece))

    async def send_end(self) -> None:
        """Ends the request."""
        await self._send(h11.EndOfMessage())

    async def head(self) -> h11.Response:
        """The status and headers of the answer. Raises PeerGone."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, each with all that has arrived. Raises PeerGone."""
        while True:
            pieces = []
            event = await self._next()
            while isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
                event = self._parsed()
            if pieces:
                yield b"".join(pieces)
            if isinstance(event, h11.EndOfMessage):
                return

    def close(self) -> None:
        """Ends the connection; whoever reads the answer is told PeerGone."""
        self._writer.transport.abort()

    async def _send(self, event: h11.Event) -> None:
        output = self._http.send(event)
        if output and not self._writer.is_closing():
            self._writer.write(output)
            await self._writer.drain()

    async def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event of the answer, once there is one."""
        while (event := self._parsed()) is h11.NEED_DATA:
            try:
                self._http.receive_data(await self._reader.read(_READ_BYTES))
            except OSError as error:
                raise PeerGone from error
        if isinstance(event, h11.ConnectionClosed):
            raise PeerGone
        return event

    def _parsed(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise PeerGone from error
