"""What the routes share, made of the model's folder: its tokenizer, its template, its parsers."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Any

from millstream.answering.runs import Runs
from millstream.api.context import OwnerFunction, ServerContext
from millstream.model.loading.chat_template import use_template
from millstream.model.loading.tokenizer import load_tokenizer
from millstream.quotas.key_ring import KeyRing
from millstream.runtime.client import EngineClient
from millstream.settings import Settings
from millstream.store.store import Store
from millstream.text_side import TextSide, text_side
from millstream.version import __version__
from millstream.workers.workers import Workers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What is started before the context is made, and stopped after it."""

    engine: EngineClient
    workers: Workers
    store: Store | None
    runs: Runs
    keys: KeyRing | None


async def make_context(
    settings: Settings, folder: Path, parts: ServerParts, *, session_secret: bytes | None = None
) -> ServerContext:
    """Loads what is needed in threads. Raises StartupError for a folder or template without use.

    session_secret: what cookies are signed with, where no store has a secret (default: a new one).
    """
    tokenizer = await asyncio.to_thread(_load_tokenizer, settings, folder)
    side = await asyncio.to_thread(text_side, tokenizer, tokenizer.backend_tokenizer, settings)
    log.info("reasoning and tool calls are read by: %s", side.parsers.description)
    return await context_of(settings, side, parts, session_secret=session_secret)


async def context_of(
    settings: Settings,
    side: TextSide,
    parts: ServerParts,
    *,
    owner: OwnerFunction | None = None,
    session_secret: bytes | None = None,
) -> ServerContext:
    """owner: says whose a request is; None asks its key or cookie. session_secret: as above."""
    store = parts.store
    own_secret = session_secret or token_bytes(32)
    secret = own_secret if store is None else await store.secret("sessions")
    return ServerContext(
        settings=settings,
        session_secret=secret,
        owner=owner,
        engine=parts.engine,
        workers=parts.workers,
        store=store,
        runs=parts.runs,
        keys=parts.keys,
        fingerprint=f"millstream-{__version__}",
        **side._asdict(),
    )


def _load_tokenizer(settings: Settings, folder: Path) -> Any:
    tokenizer = load_tokenizer(
        folder, trust_remote_code=settings.trust_remote_code, gguf_file=settings.gguf_file
    )
    if settings.chat_template is not None:
        use_template(tokenizer, Path(settings.chat_template))
    if not tokenizer.chat_template:
        log.warning("the model has no chat template: /v1/chat/completions needs --chat-template")
    return tokenizer
