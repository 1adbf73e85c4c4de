"""The process of a server with several HTTP workers: it has the engine and the listening sockets,
and starts the workers, which do everything else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from pathlib import Path
from secrets import token_bytes

from millstream.announcement import announce
from millstream.api.peers.listeners import peer_listeners
from millstream.api.wire.server import CLOSING_SECONDS, say_what_is_open
from millstream.engine_command import engine_host
from millstream.errors import StartupError
from millstream.http_workers.handed import Handed, HandedMemory, with_secrets
from millstream.http_workers.hub import Hub
from millstream.http_workers.processes import Launch, WorkerProcesses
from millstream.http_workers.pulses import Pulses, PulseWatch, watched
from millstream.http_workers.shared_admission import SharedAdmission
from millstream.http_workers.shared_status import NUM_BYTES, StatusWriter
from millstream.live_line import show_load
from millstream.quotas.keys_file import read_keys_file
from millstream.quotas.shared_table import SharedTable, shared_table_bytes
from millstream.runtime.supervised import STUCK_SHARE
from millstream.runtime.supervisor import Supervisor
from millstream.settings import Settings
from millstream.shared_memory import SharedMemory
from millstream.store.address import StoreAddress

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0  # beyond what a worker's end takes at most
_SHORTEST_SILENCE_SECONDS = 10.0  # after which a worker is stuck, and not just short of a core


async def serve_with_workers(
    settings: Settings, folder: Path, listeners: list[socket.socket]
) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP, as a server with one process does."""
    settings, store = _with_common_store(settings)
    with peer_listeners(settings.http_workers) as peers:
        shared = _Shared(settings)
        hub, workers = _hub_and_workers(settings, folder, listeners, peers, shared)
        patience = max(settings.engine_timeout * STUCK_SHARE, _SHORTEST_SILENCE_SECONDS)
        watch = PulseWatch(shared.pulses, patience, lambda: workers.pids, shared.locked)
        with watched(watch):
            await _HubServer(hub, workers, settings).run(listeners[0], store)


def _hub_and_workers(
    settings: Settings,
    folder: Path,
    listeners: list[socket.socket],
    peers: list[socket.socket],
    shared: _Shared,
) -> tuple[Hub, WorkerProcesses]:
    """peers: the sockets on which workers serve each other, by their numbers."""
    said, secret = with_secrets(settings), token_bytes(32)

    def handed(worker: int, start: int, endpoint: str) -> bytes:
        return Handed(
            worker=worker,
            start=start,
            num_workers=settings.http_workers,
            endpoint=endpoint,
            settings=said,
            folder=str(folder),
            listeners=[listener.fileno() for listener in listeners],
            peer_listener=peers[worker].fileno(),
            peer_paths=[peer.getsockname() for peer in peers],
            places=_to_hand(shared.places),
            status=_to_hand(shared.status),
            pulses=_to_hand(shared.pulse_memory),
            keys=None if shared.keys is None else _to_hand(shared.keys),
            session_secret=secret,
        ).line()

    workers = WorkerProcesses(
        Launch(
            command=[sys.executable, "-m", "millstream", "http-worker"],
            handed=handed,
            descriptors=lambda worker: [
                *(listener.fileno() for listener in (*listeners, peers[worker])),
                *shared.descriptors,
            ],
        ),
        count=settings.http_workers,
        max_restarts=settings.max_engine_restarts,
    )
    hub = Hub(
        Supervisor(
            engine_host(settings, folder),
            engine_timeout=settings.engine_timeout,
            max_restarts=settings.max_engine_restarts,
        ),
        StatusWriter(shared.status),
        shared.admission,
        num_workers=settings.http_workers,
        send=workers.send,
        forget=shared.forget,
    )
    return hub, workers


class _Shared:
    """What all workers share. keys: None for a server without keys. Raises StartupError for a file
    of keys that cannot be used."""

    def __init__(self, settings: Settings) -> None:
        limit = settings.max_concurrent_requests + settings.max_queue_size
        self.places = SharedMemory.create(SharedAdmission.num_bytes(limit))
        self.status = SharedMemory.create(NUM_BYTES)
        self.pulse_memory = SharedMemory.create(Pulses.num_bytes(settings.http_workers))
        self.pulses = Pulses(self.pulse_memory)
        self.keys: SharedMemory | None = None
        self.admission = SharedAdmission(
            self.places, limit=limit, max_waiting_tokens=settings.max_queue_tokens
        )
        self._table: SharedTable | None = None
        if settings.needs_key:
            file, num_keys = settings.api_keys_file, len(settings.api_key or ())
            num_keys += 0 if file is None else len(read_keys_file(file))
            num_bytes = shared_table_bytes(num_keys, settings.http_workers)
            self.keys = SharedMemory.create(num_bytes)
            self._table = SharedTable(self.keys, num_workers=settings.http_workers)

    @property
    def locked(self) -> list[SharedMemory]:
        """Those whose locks workers take."""
        memories = (self.places, self.status, self.keys)
        return [memory for memory in memories if memory is not None]

    @property
    def descriptors(self) -> list[int]:
        """Those that a worker inherits."""
        return [memory.descriptor for memory in (*self.locked, self.pulse_memory)]

    def forget(self, worker: int) -> None:
        """Gives back what a worker had that has ended."""
        self.pulses.clear(worker)
        self.admission.clear(worker)
        if self._table is not None:
            self._table.clear_worker(worker)


def _to_hand(memory: SharedMemory) -> HandedMemory:
    return HandedMemory(memory.descriptor, memory.num_bytes)


def _with_common_store(settings: Settings) -> tuple[Settings, str]:
    """The settings with a store that several processes can share, and what it is called. Raises
    StartupError if it is memory."""
    address = StoreAddress.parse(settings.store)
    if address is None:
        return settings, "nothing"
    if address.kind == "memory":
        raise StartupError(
            "with --http-workers, processes cannot share what is kept in memory: "
            "name a file, postgresql://... or off",
            flag="--store",
        )
    if address.is_default:  # which each of them would replace by memory of its own
        settings = settings.model_copy(update={"store": str(address)})
    return settings, str(address)


class _HubServer:
    """The hub and its workers, from the first signal's point of view."""

    def __init__(self, hub: Hub, workers: WorkerProcesses, settings: Settings) -> None:
        self._hub = hub
        self._workers = workers
        self._settings = settings
        self._is_ending = False

    async def run(self, listener: socket.socket, store: str) -> None:
        """Raises StartupError when there is no engine, or no worker, and will be none."""
        self._heed_signals()
        self._hub.start()
        serving = asyncio.create_task(self._workers.run(self._hub))
        watching = asyncio.create_task(self._watch_engine(listener, store))
        live = asyncio.create_task(show_load(self._hub, self._settings))
        try:
            await serving
        finally:
            live.cancel()
            watching.cancel()
            await self._hub.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await watching

    def begin_exit(self) -> None:
        """Drains; called again, ends the drain at once."""
        grace = 0.0
        if self._is_ending:
            log.info("shutting down: waiting no longer")
        else:
            self._is_ending = True
            grace = self._settings.graceful_termination_timeout
            say_what_is_open(self._hub.num_open, grace)
            self._workers.start_no_more()
        patience = grace + CLOSING_SECONDS + _PATIENCE_SECONDS
        asyncio.get_running_loop().call_later(patience, self._workers.kill)
        self._hub.drain()

    async def _watch_engine(self, listener: socket.socket, store: str) -> None:
        """Says so when the model is ready. Ends the server when it never will be, or no more."""
        readiness = self._hub.readiness
        try:
            info = await readiness.wait_ready()
            await self._workers.wait_serving()
            announce(info, self._settings, listener, store=store)
            raise await readiness.wait_failed()
        except StartupError:
            self.begin_exit()
            raise

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        heeded = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else under nohup
            heeded.append(signal.SIGHUP)
        for each in heeded:
            loop.add_signal_handler(each, self.begin_exit)
