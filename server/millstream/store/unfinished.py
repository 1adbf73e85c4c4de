"""Responses that nobody will finish although their server runs: what they wrote has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from millstream.errors import StoreFailed
from millstream.store.records import StoredResponse

T = TypeVar("T")


class Unfinished:
    """Their ids. Whoever ends what dead servers have left ends them, too."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def watch(self, response_id: str, operation: asyncio.Future[T]) -> asyncio.Future[T]:
        """Notes the response if the operation fails. Returns the operation."""
        operation.add_done_callback(partial(self._note, response_id))
        return operation

    def forget(self, response_id: str) -> None:
        """Notes that it is finished, or deleted."""
        self._ids.discard(response_id)

    def among(self, running: Iterable[tuple[StoredResponse, str]]) -> list[StoredResponse]:
        """Those of these responses; others are finished, or were never begun."""
        found = [response for response, _ in running if response.id in self._ids]
        self._ids = {response.id for response in found}
        return found

    def _note(self, response_id: str, operation: asyncio.Future[T]) -> None:
        if not operation.cancelled() and isinstance(operation.exception(), StoreFailed):
            self._ids.add(response_id)
