"""ChatServer: every route of the server, for somebody's own application. A composition root.

Rules: threads, not processes: the model stays where it is. What the application around it does
well (address, TLS, log, authentication) is left to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from os import PathLike, fspath

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import Unpack

from millstream.api.app import build_app
from millstream.api.context import OwnerFunction, ServerContext
from millstream.api.guards.protection import check_origins
from millstream.embedded.keywords import check_settings
from millstream.embedded.served_model import ServedModel, check_tokenizer
from millstream.errors import StartupError
from millstream.model.loading.sharing import PreTrainedModel, PreTrainedTokenizerBase
from millstream.mounted.farewell import Farewell
from millstream.mounted.keywords import MountedLoadingSettings, MountedSettings
from millstream.mounted.mount_point import MountPoint
from millstream.runtime.client import EngineClient
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from millstream.server_context import context_of
from millstream.server_parts import running_parts
from millstream.settings import Settings


class ChatServer:
    """The server around one model, for an application with a lifespan.

        chat = ChatServer(model, tokenizer)
        app = FastAPI(lifespan=chat.lifespan)
        app.mount("/llm", chat.app)

    Making it takes no time; the engine runs for as long as the lifespan.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        owner: OwnerFunction | None = None,
        **settings: Unpack[MountedSettings],
    ) -> None:
        """Serves a loaded model. Its weights are shared; the object itself is left as it is.

        owner: says whose a request is; without it, API keys or the cookies of sessions do. It may
        be asynchronous. None, or an error, is answered with 401, an HTTPException with its status.
        """
        check_tokenizer(tokenizer)
        name = str(getattr(model, "name_or_path", "") or "model")
        options = check_settings({"model_id": name, **settings}, MountedSettings)
        self._prepare(options, owner, partial(ServedModel.share, model, tokenizer, options))

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | PathLike[str],
        *,
        owner: OwnerFunction | None = None,
        **settings: Unpack[MountedLoadingSettings],
    ) -> ChatServer:
        """Loads a local folder or Hub id as the server does, once the lifespan begins."""
        given = {"model_id": fspath(model_id), **settings}
        options = check_settings(given, MountedLoadingSettings)
        server = cls.__new__(cls)
        server._prepare(options, owner, partial(ServedModel.load, options))
        return server

    def _prepare(
        self,
        settings: Settings,
        owner: OwnerFunction | None,
        make_served: Callable[[], ServedModel],
    ) -> None:
        check_origins(settings)
        if owner is not None and settings.needs_key:
            name = "api_keys_file" if settings.api_key is None else "api_key"
            raise StartupError(f"{name}: owner says whose a request is; there can be one of them")
        self._settings = settings
        self._owner = owner
        self._make_served = make_served
        self._mount_point = MountPoint()
        self._is_running = False
        self._alone = Router(lifespan=self.lifespan)

    @property
    def app(self) -> ASGIApp:
        """The application, for `mount()`; also one that a web server can run by itself."""
        return self._serve

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Runs the engine and the store; at its end open answers get their grace. For an
        application's lifespan, or within one: several may be entered there, one after the other.

        Raises TypeError or StartupError if the model cannot be served exactly, or the store not
        be opened.
        """
        if self._is_running:
            raise RuntimeError("the lifespan of this chat server is entered already")
        self._is_running = True
        try:
            served = await asyncio.to_thread(self._make_served)
            async with running_parts(self._client(served), self._settings) as parts:
                await parts.engine.wait_ready()
                context = await context_of(self._settings, served.side, parts, owner=self._owner)
                self._mount_point.open(partial(_app_at, context))
                grace = self._settings.graceful_termination_timeout
                async with Farewell(parts.engine, grace=grace):
                    yield
            await asyncio.to_thread(parts.workers.join)
        finally:
            self._mount_point.close()
            self._is_running = False

    def _client(self, served: ServedModel) -> EngineClient:
        settings = self._settings
        return supervised_client(
            ThreadHost(
                build_runner=lambda: served.runner,
                max_running=settings.max_concurrent_requests,
                max_queue_seconds=settings.max_queue_seconds,
                speculate=settings.speculate,
            ),
            max_running=settings.max_concurrent_requests,
            max_waiting=settings.max_queue_size,
            max_waiting_tokens=settings.max_queue_tokens,
            max_answer_tokens=settings.max_output_tokens,
            max_prompt_tokens=settings.max_input_tokens,
            engine_timeout=float("inf"),  # a thread that is stuck cannot be ended
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._alone if scope["type"] == "lifespan" else self._mount_point
        await handle(scope, receive, send)


def _app_at(context: ServerContext, root_path: str) -> ASGIApp:
    """The application for a place where it is mounted."""
    settings = context.settings.model_copy(update={"root_path": root_path or None})
    return build_app(replace(context, settings=settings))
