"""Which blocks go to the archive, and which come back.

Rules:
1. The full blocks of a sequence that has finished go there, unless they are there; also those of
   one that was cancelled after its first token, since that is how an answer ends at a stop string.
   They are free by then and may be taken by others, so they are copied out between steps, a few at
   a time; what was overwritten before that is not kept.
2. A sequence whose turn to run has come, and whose prefix goes on in the archive by at least
   `MIN_TOKENS`, waits until that is fetched, once; others overtake it meanwhile.
3. What is fetched becomes a free block with a known prefix, like that of a sequence that has ended.
   Nobody holds it: the sequence finds it when it is admitted, or computes what was lost.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import takewhile

from millstream.core.archive import ArchiveStatistics, BlockArchive, Piece
from millstream.core.blocks import BlockHash, BlockPool
from millstream.core.sequence import Sequence

MIN_TOKENS = 64
"""Fewer are computed as fast as they are fetched."""

MAX_FETCHES = 4
"""Sequences that wait for a fetch at the same time; others whose prefix goes on wait for them."""


@dataclass(slots=True)
class _Fetch:
    """hashes: of the prefix up to the last block that is fetched; the first num_known of them were
    in the pool when we looked last."""

    hashes: Seq[BlockHash]
    num_known: int


class ArchivedPrefixes:
    """Moves blocks between a pool and an archive, if any. Mutated only by the scheduler."""

    def __init__(self, pool: BlockPool, archive: BlockArchive | None) -> None:
        self._pool, self._archive = pool, archive
        self._min_blocks = pool.blocks_for(MIN_TOKENS)
        self._unsaved: dict[BlockHash, None] = {}  # oldest first
        self._used: list[Seq[BlockHash]] = []  # chains to be touched once they are saved
        self._fetches: dict[int, _Fetch] = {}  # by request id
        self._asked: set[int] = set()  # ids of requests that have had their fetch
        self._num_lost = 0

    @property
    def num_awaited(self) -> int:
        """Sequences that wait for a fetch."""
        return len(self._fetches)

    def keep(self, sequence: Sequence) -> None:
        """Notes the full blocks of a sequence that leaves; `save()` hands them over."""
        if self._archive is None:
            return
        hashes = sequence.hashes[: sequence.num_computed // self._pool.block_size]
        self._used.append(hashes)
        self._unsaved |= dict.fromkeys(each for each in hashes if each not in self._archive)

    def save(self) -> bool:
        """Hands over as many blocks as the archive takes now; whether work of it is left."""
        if self._archive is None:
            return False
        if self._unsaved and (room := self._archive.num_takeable):
            self._save(room)
        if self._used and not self._unsaved:
            # Only now: what is written last is dropped last, and should be the beginning.
            for hashes in self._used:
                self._archive.touch(hashes)
            self._used.clear()
        return bool(self._unsaved) or self._archive.is_writing

    def is_awaited(self, sequence: Sequence, *, spare: int) -> bool:
        """Whether a sequence that would be admitted has to wait for its prefix, which is asked for.

        spare: blocks that must be left over when it is admitted.
        """
        request_id = sequence.request.id
        if self._archive is None or request_id in self._asked:
            return request_id in self._fetches
        hashes = sequence.reusable_hashes(self._pool.block_size)
        num_known = sum(1 for _ in takewhile(self._pool.is_known, hashes))
        found = list(takewhile(self._archive.__contains__, hashes[num_known:]))
        needed = self._pool.blocks_for(len(sequence.tokens)) - num_known
        if len(found) < self._min_blocks or needed + spare > self._pool.num_free:
            return False
        if len(self._fetches) < MAX_FETCHES:
            self._asked.add(request_id)
            self._fetches[request_id] = _Fetch(hashes[: num_known + len(found)], num_known)
            self._archive.fetch(request_id, found)
        return True

    def restore(self) -> None:
        """Makes what has arrived findable in the pool."""
        if not self._fetches or self._archive is None:
            return
        for piece in self._archive.take_arrived():
            fetch = self._fetches.get(piece.request_id)
            if fetch is None:
                continue
            is_placed = self._place(fetch, piece)
            if piece.is_last or not is_placed:
                del self._fetches[piece.request_id]
                self._archive.give_up(piece.request_id)

    def forget(self, request_id: int) -> None:
        """A sequence has left."""
        self._asked.discard(request_id)
        if self._fetches.pop(request_id, None) is not None and self._archive is not None:
            self._archive.give_up(request_id)

    def close(self, *, seconds: float) -> None:
        """Saves what the archive still takes, and ends it; waits at most so long."""
        if self._archive is not None:
            while self.save() and self._unsaved and self._archive.num_takeable:
                pass
            self._archive.close(seconds=seconds)

    def statistics(self) -> ArchiveStatistics | None:
        """How the archive stands; None without one."""
        return None if self._archive is None else self._archive.statistics(num_lost=self._num_lost)

    def _save(self, room: int) -> None:
        assert self._archive is not None
        pairs: list[tuple[int, BlockHash]] = []
        while self._unsaved and len(pairs) < room:
            block_hash = next(iter(self._unsaved))
            del self._unsaved[block_hash]
            block = self._pool.block_of(block_hash)
            if block is None:
                self._num_lost += 1
            elif block_hash not in self._archive:
                pairs.append((block, block_hash))
        if pairs:
            blocks, hashes = zip(*pairs, strict=True)
            self._archive.save(blocks, hashes)

    def _place(self, fetch: _Fetch, piece: Piece) -> bool:
        """Puts a piece into free blocks; False if what it continues or the room for it is gone."""
        assert self._archive is not None
        # Held while others are allocated, which would else take the prefix itself.
        prefix = self._pool.acquire_prefix(fetch.hashes[: fetch.num_known])
        blocks = None
        if len(prefix) == fetch.num_known:
            blocks = self._pool.allocate(len(piece.hashes))
        if blocks is not None:
            self._archive.restore(piece, blocks)
            for block, block_hash in zip(blocks, piece.hashes, strict=True):
                self._pool.publish(block, block_hash)
            fetch.num_known += len(blocks)
        self._pool.release(prefix + (blocks or []))
        return blocks is not None
