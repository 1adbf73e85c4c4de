"""Blocks kept outside the KV cache, as the engine sees whoever keeps them.

Rules:
1. No call waits for a file. What is saved is copied at once and written later; what is fetched
   arrives in pieces, which are put into the cache between two steps.
2. An archive may lose anything at any time: what it says it knows is a hint, and a fetch may end
   early. What it does give is exactly what was saved under that hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from millstream.core.blocks import BlockHash


@dataclass(frozen=True, slots=True)
class ArchiveStatistics:
    """How an archive stands: blocks and bytes of now, the others since the engine's start.

    num_skipped: blocks that were not kept because writing was behind, or failed. num_damaged: those
    that turned out not to be what was written.
    """

    num_blocks: int = 0
    num_bytes: int = 0
    num_read: int = 0
    bytes_read: int = 0
    num_written: int = 0
    bytes_written: int = 0
    num_skipped: int = 0
    num_damaged: int = 0


class Piece(NamedTuple):
    """Blocks of a fetch that have arrived, in the order they were asked for.

    contents: the archive's own. is_last: whether the fetch is over, with all blocks or not.
    """

    request_id: int
    hashes: Sequence[BlockHash]
    contents: Any
    is_last: bool


class BlockArchive(Protocol):
    """What keeps blocks by their hash. For the engine's thread only."""

    @property
    def num_takeable(self) -> int:
        """Blocks that `save()` takes now."""
        ...

    @property
    def is_writing(self) -> bool:
        """Whether saved blocks are still to be written."""
        ...

    def __contains__(self, block_hash: BlockHash) -> bool:
        """Whether it seems to have the block with this hash."""
        ...

    def touch(self, hashes: Sequence[BlockHash]) -> None:
        """Makes those of a chain's blocks that it has the last to be dropped."""
        ...

    def save(self, blocks: Sequence[int], hashes: Sequence[BlockHash]) -> None:
        """Copies blocks out of the cache, to be written later. There are `num_takeable` at most."""
        ...

    def fetch(self, request_id: int, hashes: Sequence[BlockHash]) -> None:
        """Begins to read these blocks. A request has one fetch at a time."""
        ...

    def take_arrived(self) -> list[Piece]:
        """Pieces that have arrived, each given once. The last piece of every fetch comes at some
        time, unless it is given up."""
        ...

    def restore(self, piece: Piece, blocks: Sequence[int]) -> None:
        """Copies a piece into these blocks of the cache, which nobody else uses."""
        ...

    def give_up(self, request_id: int) -> None:
        """Nobody waits any more for what was fetched for this request."""
        ...

    def wait(self, seconds: float) -> None:
        """Waits until something has been read or written; at most so long, and not if nothing
        is to be."""
        ...

    def statistics(self, *, num_lost: int) -> ArchiveStatistics:
        """How it stands. num_lost: blocks that were to be saved and were overwritten before."""
        ...

    def close(self, *, seconds: float) -> None:
        """Ends it; what is saved is still written if that takes no longer than this."""
        ...
