"""One of several processes that serve HTTP in front of one engine. Started by the server, never by
hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from millstream.api.app import build_app
from millstream.api.metrics.own_counts import OwnCounts
from millstream.api.peers.peers import Peers
from millstream.api.wire.server import Server, load_tls
from millstream.http_process import settle_garbage
from millstream.http_workers.counting import WorkerCounts
from millstream.http_workers.handed import Handed
from millstream.http_workers.numbering import request_ids
from millstream.http_workers.pulses import Pulses
from millstream.http_workers.shared_admission import SharedAdmission
from millstream.http_workers.shared_status import StatusReader
from millstream.http_workers.worker_link import WorkerLink
from millstream.log import configure_logging
from millstream.metrics.ended_request import Trace
from millstream.parent import exit_with_parent
from millstream.quotas.account import Ledger
from millstream.quotas.shared_ledger import SharedLedger
from millstream.quotas.shared_table import SharedTable
from millstream.runtime.client import EngineClient
from millstream.runtime.stuck_stacks import show_stacks_when_asked
from millstream.runtime.supervised import STUCK_SHARE
from millstream.server_context import make_context
from millstream.server_parts import running_parts
from millstream.settings import Settings
from millstream.tracing.tracer import traces


def run() -> None:
    """Serves what standard input says (see http_workers/handed.py), until the hub wants it to end.
    Raises StartupError when it cannot start."""
    handed = Handed.read(sys.stdin.buffer.readline())
    exit_with_parent()
    handed.keep()
    show_stacks_when_asked()
    settings = Settings.model_validate(handed.settings)
    configure_logging(settings.log_level, form=settings.log_format)
    with contextlib.ExitStack() as stack:
        stack.callback(gc.freeze)  # see engine_process.py
        listeners = [stack.enter_context(socket.socket(fileno=n)) for n in handed.listeners]
        trace = stack.enter_context(traces(settings))
        uvloop.run(_Worker(handed, settings).serve(listeners, trace))


class _Worker:
    def __init__(self, handed: Handed, settings: Settings) -> None:
        self._handed = handed
        self._settings = settings
        self._server: Server | None = None
        self._is_drained_early = False

    async def serve(self, listeners: list[socket.socket], trace: Trace | None) -> None:
        handed, settings = self._handed, self._settings
        limit = settings.max_concurrent_requests + settings.max_queue_size
        status = StatusReader(handed.status.opened())
        link = WorkerLink(handed.endpoint, status, on_drain=self._drain)
        engine = EngineClient(
            link,
            SharedAdmission(
                handed.places.opened(),
                limit=limit,
                max_waiting_tokens=settings.max_queue_tokens,
            ),
            status=status,
            ids=request_ids(handed.worker, start=handed.start),
            max_answer_tokens=settings.max_output_tokens,
            max_prompt_tokens=settings.max_input_tokens,
            stuck_seconds=settings.engine_timeout * STUCK_SHARE,
        )
        ledger: Ledger | None = None
        if handed.keys is not None:
            table = SharedTable(handed.keys.opened(), num_workers=handed.num_workers)
            ledger = SharedLedger(table, worker=handed.worker)
        async with running_parts(engine, settings, ledger=ledger) as parts:
            context = await make_context(
                settings, Path(handed.folder), parts, session_secret=handed.session_secret
            )
            own = OwnCounts(engine.streams.metrics, context.http_metrics)
            counts = WorkerCounts(own.now, link.tell)
            link.hear_counts(counts.receive)
            peers = Peers(handed.worker, handed.peer_paths)
            context = replace(context, trace=trace, counts=counts, peers=peers)
            settle_garbage()
            self._server = Server(
                build_app(context),
                engine=engine,
                settings=settings,
                tls=load_tls(settings),
                socket_answers=context.socket_answers,
                http_metrics=context.http_metrics,
                on_serving=link.serving,
                is_one_of_several=True,
                peer_listener=socket.socket(fileno=handed.peer_listener),
                forwarding=peers.forwarding,
            )
            if self._is_drained_early:
                self._server.begin_exit()
            reporting = asyncio.create_task(counts.keep_reporting())
            beating = asyncio.create_task(
                Pulses(handed.pulses.opened()).keep_beating(handed.worker)
            )
            try:
                await self._server.serve(sockets=listeners)
            finally:
                beating.cancel()
                reporting.cancel()
                counts.report()

    def _drain(self) -> None:
        if self._server is None:
            self._is_drained_early = True
        else:
            self._server.begin_exit()
