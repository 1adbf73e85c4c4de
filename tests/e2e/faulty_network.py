"""A network between client and server that does to one direction what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

Relay = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_PART = 65_536
_CUT_AFTER = 100
"""Bytes that pass before a connection is cut: less than a request's head, or a response's."""


class Cut(Exception):
    """Both connections are to end at once, without a goodbye."""


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PART):
        writer.write(data)
        await writer.drain()


async def _latency(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PART):
        await asyncio.sleep(0.02)
        writer.write(data)


async def _bandwidth(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(512):
        await asyncio.sleep(0.003)
        writer.write(data)


async def _slicer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(3):
        writer.write(data)
        await asyncio.sleep(0)


async def _slow_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await plain(reader, writer)
    await asyncio.sleep(0.3)


async def _timeout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(_CUT_AFTER))
    while await reader.read(_PART):
        pass  # it is taken and goes nowhere


async def _reset_peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(_CUT_AFTER))
    raise Cut


async def _limit_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(_CUT_AFTER))


async def _down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise Cut


GENTLE: Mapping[str, Relay] = {
    "latency": _latency,
    "bandwidth": _bandwidth,
    "slicer": _slicer,
    "slow_close": _slow_close,
}
HARSH: Mapping[str, Relay] = {
    "timeout": _timeout,
    "reset_peer": _reset_peer,
    "limit_data": _limit_data,
    "down": _down,
}


@asynccontextmanager
async def faulty(url: str, relay: Relay, *, to_server: bool) -> AsyncIterator[str]:
    """The URL of a server as seen through it. relay: of one direction; the other one is fine."""
    place = urlsplit(url)
    there, back = (relay, plain) if to_server else (plain, relay)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(place.hostname, place.port)
        ways = [
            asyncio.create_task(_carry(there, reader, far_writer)),
            asyncio.create_task(_carry(back, far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if any(isinstance(way.exception(), Cut) for way in ways if way.done()):
                for each in (writer, far_writer):
                    _forget(each)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (writer, far_writer):
                each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _carry(relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await relay(reader, writer)


def _forget(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a reset."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
