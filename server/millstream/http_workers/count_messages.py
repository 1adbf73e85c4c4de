"""What HTTP workers and the hub between them say to each other of what they have counted.

Counts travel as `Counts.encode()` makes them.
"""

from __future__ import annotations

import msgspec


class AskCounts(msgspec.Struct, tag=True, frozen=True):
    """To the hub: a worker wants the counts of all. ask: its number for this. counts: its own."""

    ask: int
    counts: bytes


class TellCounts(msgspec.Struct, tag=True, frozen=True):
    """To the hub: what a worker has counted. gathering: which it answers; None if it was not
    asked."""

    counts: bytes
    gathering: int | None = None


class GatherCounts(msgspec.Struct, tag=True, frozen=True):
    """To a worker: it is to tell what it has counted. gathering: the hub's number for this."""

    gathering: int


class AllCounts(msgspec.Struct, tag=True, frozen=True):
    """To a worker that asked: the counts of each, and the sum over those that have ended."""

    ask: int
    counts: list[bytes]
