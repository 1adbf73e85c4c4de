"""uvicorn, configured for long streams and an orderly end.

Signals: the first SIGTERM, SIGINT or SIGHUP drains (new requests get 503, running ones go on for
the grace time, the rest get an error event), then exits with status 0. The second one skips the
wait.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Set
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from millstream.api.wire import descriptors
from millstream.api.wire.closing import UnreadAnswers
from millstream.api.wire.forwarded import ForwardedProtocol
from millstream.api.wire.protocol import Protocol
from millstream.api.wire.socket_protocol import SocketProtocol
from millstream.errors import StartupError
from millstream.metrics.http_metrics import HttpMetrics
from millstream.runtime.client import EngineClient
from millstream.settings import Settings

log = logging.getLogger(__name__)

_MAX_HEADER_BYTES = 64 * 1024
CLOSING_SECONDS = 5
"""What the connections that are left get to close, after the last answer."""
_IDLE_SECONDS = 75
"""How long a connection is kept that asks for nothing: longer than clients (5 s is usual) and load
balancers (60 s) keep theirs, so that they do not use it just when it is closed."""
_MESSAGE_SLACK = 2
"""How much larger than a body a WebSocket message may be and still be refused by an event: what is
larger yet ends its connection."""


def load_tls(settings: Settings) -> ssl.SSLContext | None:
    """What to encrypt with, if anything. Raises StartupError for files that do not serve."""
    files = {"--ssl-certfile": settings.ssl_certfile, "--ssl-keyfile": settings.ssl_keyfile}
    if settings.ssl_certfile is None:
        if settings.ssl_keyfile is not None:
            raise StartupError("--ssl-keyfile: a certificate is needed too; see --ssl-certfile")
        return None
    for flag, file in files.items():
        if file is not None and not Path(file).is_file():
            raise StartupError(f"{flag}: there is no file {file}")
    secret = settings.ssl_keyfile_password
    asked: list[bool] = []

    def password() -> str:
        # Given even if there is none: OpenSSL asks in the terminal otherwise.
        asked.append(True)
        return "" if secret is None else secret.get_secret_value()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
    except (OSError, ValueError) as error:
        if asked:
            reason = "--ssl-keyfile-password: the private key cannot be decrypted with it"
        else:
            reason = _explain(error, files)
        raise StartupError(reason) from error
    return context


def _explain(error: Exception, files: dict[str, str | None]) -> str:
    given = " and ".join(flag for flag, file in files.items() if file is not None)
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{given}: the private key is not that of the certificate"
    return f"{given}: no PEM certificate with its private key ({reason or error})"


class _Protocols(NamedTuple):
    http: type[Protocol]
    forwarded: type[ForwardedProtocol]
    websocket: type[SocketProtocol]


def _protocols(settings: Settings, http_metrics: HttpMetrics, *, has_peers: bool) -> _Protocols:
    # Each request may need a second connection, to another worker.
    num_descriptors = 2 if has_peers else 1

    class Configured(Protocol):
        send_timeout = settings.send_timeout
        unread = UnreadAnswers()
        max_connections = descriptors.max_connections() // num_descriptors
        metrics = http_metrics

    class ConfiguredForwarded(ForwardedProtocol, Configured):
        pass

    class ConfiguredSocket(SocketProtocol):
        metrics = http_metrics

    return _Protocols(Configured, ConfiguredForwarded, ConfiguredSocket)


def say_what_is_open(count: int, grace: float) -> None:
    """Logs what the end waits for. count: requests that hold a place."""
    if not count:
        log.info("shutting down: no request is open")
        return
    log.info(
        "shutting down: waiting up to %.0f s for %d open %s; a second Ctrl-C or SIGTERM "
        "ends %s at once",
        grace,
        count,
        *(("request", "it") if count == 1 else ("requests", "them")),
    )


class Server(uvicorn.Server):
    """A uvicorn server that drains its engine before it closes connections.

    tls: what to encrypt with; None for plain HTTP. socket_answers: what is being said over
    WebSockets, which uvicorn closes without asking. http_metrics: counts what is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        engine: EngineClient,
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        socket_answers: Set[asyncio.Task[None]] = frozenset(),
        http_metrics: HttpMetrics,
        on_serving: Callable[[], None] = lambda: None,
        is_one_of_several: bool = False,
        peer_listener: socket.socket | None = None,
        forwarding: Set[asyncio.Task[Any]] = frozenset(),
    ) -> None:
        """on_serving: called when connections are taken. is_one_of_several: somebody else says how
        it ends. peer_listener: the Unix socket over which other HTTP workers forward requests to
        this one, if there are others. forwarding: what waits for their answers.
        """
        protocols = _protocols(settings, http_metrics, has_peers=peer_listener is not None)
        # h11, not httptools: httptools puts no limit on the size of headers.
        super().__init__(
            uvicorn.Config(
                app,
                http=protocols.http,
                ws=protocols.websocket,
                ws_max_size=_MESSAGE_SLACK * settings.payload_limit,
                # Events of a few bytes are not worth it; nor is what it costs to unpack.
                ws_per_message_deflate=False,
                ws_ping_interval=settings.ping_seconds,
                ws_ping_timeout=settings.send_timeout,
                lifespan="off",
                h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
                timeout_keep_alive=_IDLE_SECONDS,
                timeout_graceful_shutdown=CLOSING_SECONDS,
                log_config=None,
                log_level="warning" if settings.log_level != "debug" else "debug",
                # Its lines have queries, and what X-Forwarded-For says; our own have neither.
                access_log=False,
                server_header=False,
                ssl_context_factory=None if tls is None else lambda config, default: tls,
            )
        )
        self.engine = engine
        self._socket_answers = socket_answers
        self._forwarding = forwarding
        self._peer_listener, self._forwarded_protocol = peer_listener, protocols.forwarded
        self._grace = settings.graceful_termination_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Future[None] | None = None
        self._on_serving = on_serving
        self._is_one_of_several = is_one_of_several

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._peer_listener is not None:
            connected = partial(
                self._forwarded_protocol, self.config, self.server_state, self.lifespan.state
            )
            # Not create_unix_server(), which removes the file when it ends: the next worker of this
            # number serves the same socket.
            serving = asyncio.get_running_loop().create_server(
                connected, sock=self._peer_listener, backlog=self.config.backlog
            )
            self.servers.append(await serving)
        if self.started:
            self._on_serving()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGHUP)
        if before is signal.SIG_DFL:  # under nohup it is ignored, and stays so
            signal.signal(signal.SIGHUP, self.handle_exit)
        try:
            await super().serve(sockets)
        finally:
            signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs in a signal handler. Intentional: not uvicorn's, which would cut streams."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.begin_exit)

    def begin_exit(self) -> None:
        """Drains; called again, ends the drain at once."""
        if self._draining is None:
            if not self._is_one_of_several:
                say_what_is_open(self.engine.num_open, self._grace)
            self._drain(self._grace)
        else:
            if not self._is_one_of_several:
                log.info("shutting down: waiting no longer")
            self._draining.cancel()
            self._drain(0)

    def _drain(self, grace: float) -> None:
        self._draining = asyncio.ensure_future(self._end_answers(grace))
        self._draining.add_done_callback(self._on_drained)

    async def _end_answers(self, grace: float) -> None:
        latest = asyncio.get_running_loop().time() + grace + CLOSING_SECONDS
        await self.engine.drain(grace=grace)
        if self._socket_answers:  # those that have failed now say so, and are kept
            await asyncio.wait(set(self._socket_answers), timeout=CLOSING_SECONDS)
        if self._forwarding:  # whoever makes them ends them in the same time
            remaining = max(latest - asyncio.get_running_loop().time(), 0)
            await asyncio.wait(set(self._forwarding), timeout=remaining)

    def _on_drained(self, draining: asyncio.Future[None]) -> None:
        """Ends the server, also if draining failed; not if it was to be done again, faster."""
        if draining.cancelled():
            return
        if (error := draining.exception()) is not None:
            log.error("draining failed", exc_info=error)
        self.should_exit = True
