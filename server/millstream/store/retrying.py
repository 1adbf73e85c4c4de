"""Operations that the store must do sooner or later, although it fails now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from millstream.errors import StoreFailed
from millstream.store.failures import is_refusal

_RETRY_SECONDS = 1.0


async def until_done(operation: Callable[[], Awaitable[object]]) -> None:
    """Tries until the store does it. Raises what would be raised every time."""
    while True:
        try:
            await operation()
            return
        except StoreFailed as failure:
            if is_refusal(failure):
                raise
            await asyncio.sleep(_RETRY_SECONDS)
