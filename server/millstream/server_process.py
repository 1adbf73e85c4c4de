"""The HTTP process: puts the parts together, starts the engine, serves until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import uvloop

from millstream.announcement import announce
from millstream.api.app import build_app
from millstream.api.guards.protection import check_origins
from millstream.api.wire.listening import listen
from millstream.api.wire.server import Server, load_tls
from millstream.engine_command import engine_host
from millstream.http_process import forget_secrets, settle_garbage
from millstream.hub_process import serve_with_workers
from millstream.live_line import show_load
from millstream.log import configure_logging
from millstream.metrics.ended_request import Trace
from millstream.model.loading.source import resolve
from millstream.runtime.supervised import supervised_client
from millstream.server_context import make_context
from millstream.server_parts import running_parts
from millstream.settings import Settings
from millstream.tracing.tracer import traces


def run(settings: Settings) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP. Raises StartupError when it cannot start."""
    configure_logging(settings.log_level, form=settings.log_format)
    check_origins(settings)
    tls = load_tls(settings)
    forget_secrets()
    with contextlib.ExitStack() as stack:
        stack.callback(gc.freeze)  # for a start that fails; see engine_process.py
        listeners = [stack.enter_context(listener) for listener in listen(settings)]
        if settings.http_workers > 1:
            uvloop.run(serve_with_workers(settings, resolve(settings), listeners))
            return
        trace = stack.enter_context(traces(settings))
        folder = resolve(settings)
        uvloop.run(_serve(settings, folder, listeners, tls, trace))


async def _serve(
    settings: Settings,
    folder: Path,
    listeners: list[socket.socket],
    tls: ssl.SSLContext | None,
    trace: Trace | None,
) -> None:
    engine = supervised_client(
        engine_host(settings, folder),
        max_running=settings.max_concurrent_requests,
        max_waiting=settings.max_queue_size,
        max_waiting_tokens=settings.max_queue_tokens,
        max_answer_tokens=settings.max_output_tokens,
        max_prompt_tokens=settings.max_input_tokens,
        engine_timeout=settings.engine_timeout,
        max_restarts=settings.max_engine_restarts,
    )
    async with running_parts(engine, settings) as parts:
        # The engine loads in its process while the tokenizer loads here.
        context = replace(await make_context(settings, folder, parts), trace=trace)
        settle_garbage()
        server = Server(
            build_app(context),
            engine=engine,
            settings=settings,
            tls=tls,
            socket_answers=context.socket_answers,
            http_metrics=context.http_metrics,
        )
        place = "nothing" if parts.store is None else parts.store.description
        watching = asyncio.create_task(_watch_engine(server, settings, listeners[0], place))
        live = asyncio.create_task(show_load(engine, settings))
        await server.serve(sockets=listeners)
        live.cancel()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch_engine(
    server: Server, settings: Settings, listener: socket.socket, store: str
) -> None:
    """Says so when the model is ready. Ends the server when it never will be, or no more."""
    try:
        info = await server.engine.wait_ready()
        announce(info, settings, listener, store=store)
        raise await server.engine.wait_failed()
    except Exception:
        server.begin_exit()
        raise
