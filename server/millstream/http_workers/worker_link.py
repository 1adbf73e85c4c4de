"""A worker's EngineLink: the hub, which has the engine.

Rule: a worker that cannot follow the hub any more fails its requests and ends; another takes its
place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import zmq
import zmq.asyncio

from millstream.http_workers.count_messages import AllCounts, GatherCounts
from millstream.http_workers.messages import (
    Drain,
    EngineEnded,
    Serving,
    ToHub,
    decode_from_hub,
    encode,
)
from millstream.http_workers.shared_status import StatusReader
from millstream.runtime.engine_link import Listener
from millstream.runtime.messages import ToEngine

log = logging.getLogger(__name__)

_LINGER_MS = 1000  # for what was said last


class WorkerLink:
    """For one event loop. The hub must be listening at the endpoint."""

    def __init__(
        self, endpoint: str, status: StatusReader, *, on_drain: Callable[[], None]
    ) -> None:
        """on_drain: called when the hub wants the worker to end, and again when at once."""
        self._status = status
        self._on_drain = on_drain
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.connect(endpoint)
        self._counts: Callable[[GatherCounts | AllCounts], None] | None = None
        self._receiving: asyncio.Task[None] | None = None

    @property
    def silence(self) -> float | None:
        return self._status.silence

    def start(self, listener: Listener) -> None:
        self._receiving = asyncio.create_task(self._receive(listener), name="hub-messages")
        self._receiving.add_done_callback(partial(self._on_lost, listener))

    def post(self, message: ToEngine) -> None:
        self._send(message)

    def tell(self, message: ToHub) -> None:
        """Says something that is for the hub itself."""
        self._send(message)

    def hear_counts(self, counts: Callable[[GatherCounts | AllCounts], None]) -> None:
        """counts: gets what the hub says of counts, from now on."""
        self._counts = counts

    def serving(self) -> None:
        """Tells the hub that this worker takes connections."""
        self._send(Serving())

    def expect_news(self) -> None:
        """The hub sees it."""

    def start_no_more(self) -> None:
        """The engine is the hub's to end."""

    async def stop(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        self._socket.close(linger=_LINGER_MS)
        await asyncio.to_thread(self._context.term)

    def _send(self, message: ToHub | ToEngine) -> None:
        # Sends at once: the hub listened before it started this process.
        self._socket.send(encode(message))

    def _on_lost(self, listener: Listener, receiving: asyncio.Task[None]) -> None:
        if receiving.cancelled():
            return
        log.error("nobody can follow the hub, so it ends", exc_info=receiving.exception())
        listener.on_end("the engine is out of reach", is_final=True)
        self._on_drain()

    async def _receive(self, listener: Listener) -> None:
        while True:
            message = decode_from_hub(await self._socket.recv())
            if isinstance(message, Drain):
                self._on_drain()
            elif isinstance(message, GatherCounts | AllCounts):
                if self._counts is not None:
                    self._counts(message)
            elif isinstance(message, EngineEnded):
                listener.on_end(message.how, is_final=message.is_final)
            else:
                listener.on_message(message)
