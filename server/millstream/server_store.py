"""The store of a server for as long as it runs: opened, looked after, closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from millstream.api.openai.responses.recovery import keep_up, recover
from millstream.settings import Settings
from millstream.store.address import StoreAddress
from millstream.store.store import Store


@asynccontextmanager
async def kept_store(settings: Settings) -> AsyncIterator[Store | None]:
    """The store that the settings name; None if nothing is to be kept. Raises StartupError.

    What ran when a server ended has failed before anybody can ask for it.
    """
    address = StoreAddress.parse(settings.store)
    if address is None:
        yield None
        return
    store = await Store.open(address, days=settings.store_days, num_bytes=settings.store_bytes)
    try:
        await recover(store)
        upkeep = asyncio.create_task(keep_up(store))
        try:
            yield store
        finally:
            upkeep.cancel()
    finally:
        await store.close()
