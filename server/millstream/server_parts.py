"""What runs beneath the routes for as long as a server does: engine, children, store, keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from millstream.answering.runs import Runs
from millstream.quotas.account import Ledger
from millstream.quotas.key_ring import KeyRing
from millstream.runtime.client import EngineClient
from millstream.server_context import ServerParts
from millstream.server_store import kept_store
from millstream.settings import Settings
from millstream.workers.workers import Workers


@contextlib.asynccontextmanager
async def running_parts(
    engine: EngineClient, settings: Settings, *, ledger: Ledger | None = None
) -> AsyncIterator[ServerParts]:
    """Starts them, without waiting for the model; stops them in an order in which nobody waits for
    what is gone. Raises StartupError for keys or a store that cannot be used.

    ledger: where the accounts of keys are (default: in this process).
    """
    keys = None
    if settings.needs_key:
        keys = KeyRing(settings.api_key or (), settings.api_keys_file, ledger=ledger)
    watching = None if keys is None else asyncio.create_task(keys.watch())
    engine.start()
    workers, runs, stack = Workers(), Runs(), contextlib.AsyncExitStack()
    try:
        await workers.grammars.warm()
        store = await stack.enter_async_context(kept_store(settings))
        yield ServerParts(engine, workers, store, runs, keys)
    finally:
        if watching is not None:
            watching.cancel()
        await engine.stop()
        await runs.stop()
        await workers.stop()
        await stack.aclose()
