"""The HTTP process: puts the parts together, starts the engine, serves until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from millstream.announcement import announce
from millstream.api.app import build_app
from millstream.api.guards.protection import check_origins
from millstream.api.wire.listening import listen
from millstream.api.wire.server import Server, load_tls
from millstream.live_line import show_load
from millstream.log import configure_logging
from millstream.metrics.ended_request import Trace
from millstream.model.loading.source import resolve
from millstream.runtime.host import ProcessHost
from millstream.runtime.supervised import supervised_client
from millstream.server_context import make_context
from millstream.server_parts import running_parts
from millstream.settings import Settings
from millstream.tracing.tracer import traces

# GNU OpenMP's threads spin for long while they wait for each other. Beside anything else that runs
# on their cores, and the HTTP side does, that takes the time of the one they wait for; not to spin
# at all costs a wake-up in every operation. Huge pages: a step reads all weights, and in pages of
# four KiB it waits for their addresses, too. Figures in docs/decisions.md.
ENGINE_ENVIRONMENT = {"GOMP_SPINCOUNT": "50000", "THP_MEM_ALLOC_ENABLE": "1"}
"""Variables of the engine's process, where the operator's environment does not set them."""


def run(settings: Settings) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP. Raises StartupError when it cannot start."""
    configure_logging(settings.log_level, form=settings.log_format)
    check_origins(settings)
    tls = load_tls(settings)
    _forget_secrets()
    with contextlib.ExitStack() as stack:
        stack.callback(gc.freeze)  # for a start that fails; see engine_process.py
        listeners = [stack.enter_context(listener) for listener in listen(settings)]
        trace = stack.enter_context(traces(settings))
        folder = resolve(settings)
        uvloop.run(_serve(settings, folder, listeners, tls, trace))


def _forget_secrets() -> None:
    """Takes them from the environment, which the engine's process and compilers inherit."""
    secrets = {n for n, field in Settings.model_fields.items() if field.exclude}
    for variable in list(os.environ):
        if variable.lower() in {f"millstream_{name}" for name in secrets}:
            del os.environ[variable]


async def _serve(
    settings: Settings,
    folder: Path,
    listeners: list[socket.socket],
    tls: ssl.SSLContext | None,
    trace: Trace | None,
) -> None:
    command = [sys.executable, "-m", "millstream", "engine"]
    command += ["--settings", settings.model_dump_json(), "--folder", str(folder)]
    engine = supervised_client(
        ProcessHost(command, environment=ENGINE_ENVIRONMENT),
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
        _settle_garbage()
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


def _settle_garbage() -> None:
    """Keeps the collector's pauses out of the streams. Figures in docs/decisions.md."""
    # What was loaded stays, so no collection needs to walk through it again.
    gc.collect()
    gc.freeze()
    # One step of 2000 streams makes more objects than the default of 700 allows for.
    gc.set_threshold(10_000, 10, 10)


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
