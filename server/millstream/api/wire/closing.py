"""How a connection ends: never over input that would reset it, never later than a bound.

A socket closed over unread input answers with a reset, which can overtake the last answer. So what
still comes is read and dropped until the client is done, for so many seconds and bytes. A client
that does not read is not waited for, and of large answers that wait there are only so many bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
LINGER_BYTES = 32 * 1024 * 1024
_ENOUGH_READ = 32 * 1024
_LARGE_ANSWER = 1024 * 1024
_MAX_UNREAD = 256 * 1024 * 1024


class UnreadAnswers:
    """The large answers that wait to be read, of all connections of one server.

    limit: bytes in all. A single one may be larger.
    """

    def __init__(self, *, limit: int = _MAX_UNREAD) -> None:
        self._limit = limit
        self._waiting: dict[BoundedTransport, None] = {}

    def add(self, transport: BoundedTransport) -> None:
        """Ends those that wait for longest if this one is too much."""
        self._waiting[transport] = None
        oldest_first = list(self._waiting)
        sizes = [each.get_write_buffer_size() for each in oldest_first]
        excess = sum(sizes) - self._limit
        for other, size in zip(oldest_first[:-1], sizes, strict=False):
            if excess <= 0:
                return
            excess -= size
            log.info("too much waits to be read; closed the connection that waits for longest")
            other.abort()

    def remove(self, transport: BoundedTransport) -> None:
        self._waiting.pop(transport, None)


class BoundedTransport(asyncio.Transport):
    """A transport whose `close()` keeps to the module's rules.

    is_input_open: whether the client may still be sending. send_timeout: seconds in which a client
    must read something of what waits for it. unread: where its large answers count.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        loop: asyncio.AbstractEventLoop,
        is_input_open: Callable[[], bool],
        send_timeout: float,
        unread: UnreadAnswers,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self.is_input_open = is_input_open
        self._send_timeout = send_timeout
        self._unread = unread
        self._lingering: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._is_lost = False
        self._num_dropped = 0
        self._num_unread = 0
        # On the path of every event of a stream.
        self.write = transport.write  # type: ignore[method-assign]

    @property
    def is_lingering(self) -> bool:
        """Whether everything was said, and what comes is dropped."""
        return self._lingering is not None

    def close(self) -> None:
        if self.is_closing():
            return
        if self.is_input_open():
            self.linger()
        else:
            self._close()

    def linger(self) -> None:
        """Closes when the client is done, or at a bound."""
        if self.is_closing():
            return
        if self.can_write_eof():
            self.write_eof()
        self._lingering = self._loop.call_later(LINGER_SECONDS, self._close)
        # Paused, it would not be heard that the client is done.
        self._transport.resume_reading()
        self.watch_reader()

    def drop(self, data: bytes) -> None:
        """Takes what comes while it lingers."""
        self._num_dropped += len(data)
        if self._num_dropped > LINGER_BYTES:
            self._close()

    def finish(self) -> None:
        """Lingers no more."""
        if self.is_lingering:
            self._close()

    def watch_reader(self) -> None:
        """Ends the connection unless the client reads on. Called when something waits for it."""
        if self._watching is None and (num_unread := self.get_write_buffer_size()):
            self._num_unread = num_unread
            self._watching = self._loop.call_later(self._send_timeout, self._look)
            if num_unread >= _LARGE_ANSWER:
                self._unread.add(self)

    def unwatch_reader(self) -> None:
        """Called when the client has read so much that more may be sent."""
        if self._watching is not None and not self.is_closing():
            self._watching.cancel()
            self._watching = None
            self._unread.remove(self)

    def end(self) -> None:
        """Forgets the timers, once the connection is lost."""
        self._is_lost = True
        self._unread.remove(self)
        for timer in (self._lingering, self._watching):
            if timer is not None:
                timer.cancel()

    def _close(self) -> None:
        self._transport.close()
        self.watch_reader()

    def _look(self) -> None:
        self._watching = None
        num_unread = self.get_write_buffer_size()
        if num_unread > max(self._num_unread - _ENOUGH_READ, 0):
            log.info("a client stopped reading its answer; closed the connection")
            self.abort()
        else:
            self.watch_reader()

    def is_closing(self) -> bool:
        return self._is_lost or self.is_lingering or self._transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def abort(self) -> None:
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        self._transport.write_eof()

    def pause_reading(self) -> None:
        if not self.is_lingering:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
