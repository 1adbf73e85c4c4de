"""What keeps a stream open that has nothing to say."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.types import Send

from millstream.api.wire.short_way import PieceWriter


class Pings:
    """A piece that is sent again and again while this context lasts, whatever else is sent.

    seconds: from one to the next; 0 sends none. write, send: the short way and the long one.
    """

    def __init__(self, ping: bytes, *, write: PieceWriter, send: Send, seconds: float) -> None:
        self._ping = ping
        self._write = write
        self._send = send
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._wait()

    def __exit__(self, *_: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()

    def _wait(self) -> None:
        if self._seconds:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._go)

    def _go(self) -> None:
        self._wait()
        # One that has not got through yet is enough.
        if not self._write(self._ping) and (self._sending is None or self._sending.done()):
            self._sending = asyncio.ensure_future(self._go_the_long_way())

    async def _go_the_long_way(self) -> None:
        # That the connection is gone is heard elsewhere.
        with suppress(OSError):
            await self._send({"type": "http.response.body", "body": self._ping, "more_body": True})
