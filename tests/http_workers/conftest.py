"""A hub and its workers in one process: real clients, a real engine in a thread, no sockets between
them. What crosses is written and read as it would be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from millstream.http_workers.hub import Hub
from millstream.http_workers.messages import (
    Drain,
    EngineEnded,
    FromHub,
    ToHub,
    decode_from_hub,
    decode_to_hub,
    encode,
)
from millstream.http_workers.numbering import request_ids
from millstream.http_workers.shared_admission import SharedAdmission
from millstream.http_workers.shared_status import NUM_BYTES, StatusReader, StatusWriter
from millstream.runtime.client import EngineClient
from millstream.runtime.engine_link import Listener
from millstream.runtime.messages import ToEngine
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.supervisor import Supervisor
from millstream.runtime.thread_host import ThreadHost
from millstream.shared_memory import SharedMemory

NUM_WORKERS = 3


class DirectLink:
    """An EngineLink that calls the hub. drains: how often it was told to end."""

    def __init__(self, worker: int, hub: Hub, status: StatusReader) -> None:
        self._worker = worker
        self._hub = hub
        self._status = status
        self._listener: Listener | None = None
        self.drains = 0

    @property
    def silence(self) -> float | None:
        return self._status.silence

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._hub.greet(self._worker)

    def post(self, message: ToEngine) -> None:
        sent: ToHub = decode_to_hub(encode(message))
        self._hub.on_worker_message(self._worker, sent)

    def expect_news(self) -> None: ...

    def start_no_more(self) -> None: ...

    async def stop(self) -> None:
        self._listener = None

    def tell(self, data: bytes) -> None:
        message = decode_from_hub(data)
        if self._listener is None:
            return
        if isinstance(message, Drain):
            self.drains += 1
        elif isinstance(message, EngineEnded):
            self._listener.on_end(message.how, is_final=message.is_final)
        else:
            self._listener.on_message(message)


class Workers:
    """A hub in front of one engine, and the clients of its workers, by their numbers.

    told: what each worker was sent, since somebody has looked.
    """

    def __init__(self, build: Callable[[], Runner], *, limit: int, max_running: int) -> None:
        self._limit = limit
        self._places = SharedMemory.create(SharedAdmission.num_bytes(limit))
        self._status = SharedMemory.create(NUM_BYTES)
        self.admission = self._view()
        self.told: dict[int, list[FromHub]] = {worker: [] for worker in range(NUM_WORKERS)}
        self._num_starts = [0] * NUM_WORKERS
        self.links: dict[int, DirectLink] = {}
        self.clients: dict[int, EngineClient] = {}
        host = ThreadHost(build_runner=build, max_running=max_running)
        self.hub = Hub(
            Supervisor(host, engine_timeout=60),
            StatusWriter(self._status),
            self.admission,
            num_workers=NUM_WORKERS,
            send=self._send,
            forget=self.admission.clear,
        )
        for worker in range(NUM_WORKERS):
            self.begin(worker)

    def begin(self, worker: int) -> EngineClient:
        """Starts a worker, in the place of one that is gone."""
        reader = StatusReader(self._status)
        self.links[worker] = link = DirectLink(worker, self.hub, reader)
        client = EngineClient(
            link,
            self._view(),
            status=reader,
            ids=request_ids(worker, start=self._num_starts[worker]),
            stuck_seconds=30,
        )
        self._num_starts[worker] += 1
        self.clients[worker] = client
        client.start()
        return client

    async def kill(self, worker: int) -> None:
        """Ends a worker without a word."""
        await self.links[worker].stop()
        self.hub.on_worker_end(worker)

    def _view(self) -> SharedAdmission:
        return SharedAdmission(self._places, limit=self._limit, max_waiting_tokens=None)

    def _send(self, worker: int, message: FromHub) -> None:
        self.told[worker].append(message)
        if worker in self.links:
            self.links[worker].tell(encode(message))


WorkersFactory = Callable[..., AbstractAsyncContextManager[Workers]]


@pytest.fixture
def run_workers() -> WorkersFactory:
    @asynccontextmanager
    async def run(
        build: Callable[[], Runner], *, limit: int = 64, max_running: int = 8
    ) -> AsyncIterator[Workers]:
        workers = Workers(build, limit=limit, max_running=max_running)
        workers.hub.start()
        try:
            await workers.hub.readiness.wait_ready()
            yield workers
        finally:
            await workers.hub.stop()

    return run
