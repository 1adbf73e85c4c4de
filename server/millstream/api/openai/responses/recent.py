"""Responses that a connection can go on from though they are stored nowhere.

Rules: what is kept is the conversation to the end of each of them, as JSON, whose size is known; of
all together there are so many bytes and so many responses, and the oldest goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

_MAX_RESPONSES = 64


class RecentResponses:
    """Those of one connection. max_bytes: of all together."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[str, bytes] = {}
        self._num_bytes = 0

    def __contains__(self, response_id: object) -> bool:
        return response_id in self._kept

    def items(self, response_id: str) -> list[dict[str, Any]]:
        """The conversation to the end of a response that is here."""
        items: list[dict[str, Any]] = msgspec.json.decode(self._kept[response_id])
        return items

    def keep(self, response_id: str, items: Sequence[dict[str, Any]]) -> None:
        """Keeps a response, unless it is larger than all may be."""
        kept = msgspec.json.encode(items)
        if len(kept) > self._max_bytes:
            return
        self._kept[response_id] = kept
        self._num_bytes += len(kept)
        while self._num_bytes > self._max_bytes or len(self._kept) > _MAX_RESPONSES:
            self.drop(next(iter(self._kept)))

    def drop(self, response_id: str) -> None:
        """Forgets a response, if it is here."""
        self._num_bytes -= len(self._kept.pop(response_id, b""))
