"""The lanes of one connection: what is in the same lane happens one after the other.

Rules: lanes do not wait for each other; one that has nothing to do is forgotten; what waits in all
of them together is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from millstream.api.wire.sockets import SocketGone
from millstream.errors import InvalidRequest, Overloaded

Work = Callable[[], Coroutine[Any, Any, None]]

_MAX_LANES = 32
_MAX_WAITING = 32


class Lanes:
    """Does the work of one connection. max_bytes: size of what waits."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queues: dict[str | None, deque[tuple[Work, int]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_waiting = 0
        self._num_bytes = 0

    def submit(self, name: str | None, work: Work, *, size: int) -> None:
        """Has it done in its turn. Raises InvalidRequest for a lane too many, and Overloaded."""
        queue = self._queues.get(name)
        if queue is None:
            if len(self._queues) >= _MAX_LANES:
                raise InvalidRequest(
                    f"stream_id: this connection makes {_MAX_LANES} responses at a time already",
                    param="stream_id",
                    code="websocket_stream_limit_reached",
                )
            queue = self._queues[name] = deque()
            task = asyncio.create_task(self._work_off(name, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif self._num_waiting >= _MAX_WAITING or self._num_bytes + size > self._max_bytes:
            raise Overloaded(
                "too much waits on this connection; send less ahead, or use another stream_id",
                code="websocket_queue_full",
            )
        queue.append((work, size))
        self._num_waiting += 1
        self._num_bytes += size

    async def stop(self) -> None:
        """Cancels everything, and waits until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work_off(self, name: str | None, queue: deque[tuple[Work, int]]) -> None:
        try:
            while queue:
                work, size = queue.popleft()
                self._num_waiting -= 1
                self._num_bytes -= size
                await work()
        except SocketGone:
            pass
        finally:
            del self._queues[name]
