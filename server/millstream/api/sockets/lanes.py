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
from millstream.errors import InvalidRequest, MillstreamError, Overloaded

Work = Callable[[], Coroutine[Any, Any, None]]

MAX_LANES = 32
_MAX_WAITING = 32


class Lanes:
    """Does the work of one connection.

    tasks: those of all connections. max_bytes: size of what waits. field: which names a lane.
    """

    def __init__(
        self,
        tasks: set[asyncio.Task[None]],
        *,
        max_bytes: int,
        field: str,
        max_lanes: int = MAX_LANES,
    ) -> None:
        self._all_tasks = tasks
        self._max_bytes = max_bytes
        self._field = field
        self._max_lanes = max_lanes
        self._queues: dict[object, deque[tuple[Work, int]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_waiting = 0
        self._num_bytes = 0
        self._last_end = asyncio.get_running_loop().time()

    @property
    def quiet_since(self) -> float:
        """When the last work ended, by the clock of the event loop; now, while there is some."""
        return asyncio.get_running_loop().time() if self._queues else self._last_end

    def submit(self, name: object, work: Work, *, size: int) -> None:
        """Has it done in its turn. Raises InvalidRequest for a lane too many, and Overloaded."""
        queue = self._queues.get(name)
        if queue is None:
            if len(self._queues) >= self._max_lanes:
                raise self._too_many()
            queue = self._queues[name] = deque()
            task = asyncio.create_task(self._work_off(name, queue))
            for tasks in (self._tasks, self._all_tasks):
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        elif self._num_waiting >= _MAX_WAITING or self._num_bytes + size > self._max_bytes:
            raise Overloaded(
                f"too much waits on this connection; send less ahead, or use another {self._field}",
                code="websocket_queue_full",
            )
        queue.append((work, size))
        self._num_waiting += 1
        self._num_bytes += size

    def _too_many(self) -> MillstreamError:
        return InvalidRequest(
            f"{self._field}: this connection makes {self._max_lanes} responses at a time already",
            param=self._field,
            code="websocket_stream_limit_reached",
        )

    async def stop(self) -> None:
        """Cancels everything, and waits until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work_off(self, name: object, queue: deque[tuple[Work, int]]) -> None:
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
            self._last_end = asyncio.get_running_loop().time()
