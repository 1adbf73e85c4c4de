"""An archive in memory, over the fake runner's cache, that loses, delays and finds damage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from millstream.core.archive import ArchiveStatistics, Piece
from millstream.core.blocks import BlockHash
from tests.fakes import FakeRunner


class FakeArchive:
    """Keeps everything at once if `source` is None; otherwise a random part, in random pieces."""

    def __init__(self, runner: FakeRunner, source: random.Random | None = None) -> None:
        self._runner = runner
        self._source = source
        self.kept: dict[BlockHash, tuple[int, ...]] = {}
        self._fetches: dict[int, list[BlockHash]] = {}
        self._unwritten = 0
        self.touched: list[BlockHash] = []
        self.num_restored = 0
        self.num_damaged = 0
        self.is_open = True

    @property
    def num_fetches(self) -> int:
        """Fetches that are not over."""
        return len(self._fetches)

    @property
    def num_takeable(self) -> int:
        return 1000 if self._source is None else self._source.randint(0, 3)

    @property
    def is_writing(self) -> bool:
        self._unwritten = max(0, self._unwritten - 1)
        return self._unwritten > 0

    def __contains__(self, block_hash: BlockHash) -> bool:
        return block_hash in self.kept

    def touch(self, hashes: Sequence[BlockHash]) -> None:
        self.touched += hashes

    def save(self, blocks: Sequence[int], hashes: Sequence[BlockHash]) -> None:
        self._unwritten += 2
        for contents, block_hash in zip(self._runner.copy_out(blocks), hashes, strict=True):
            if not self._happens(0.1):
                self.kept[block_hash] = contents

    def fetch(self, request_id: int, hashes: Sequence[BlockHash]) -> None:
        assert request_id not in self._fetches, "two fetches for one request"
        assert hashes
        self._fetches[request_id] = list(hashes)

    def take_arrived(self) -> list[Piece]:
        pieces = []
        for request_id, hashes in list(self._fetches.items()):
            if self._happens(0.5):
                continue
            piece = self._read(request_id, hashes)
            pieces.append(piece)
            if piece.is_last:
                del self._fetches[request_id]
        return pieces

    def restore(self, piece: Piece, blocks: Sequence[int]) -> None:
        self._runner.copy_in(blocks, piece.contents)
        self.num_restored += len(blocks)

    def give_up(self, request_id: int) -> None:
        self._fetches.pop(request_id, None)

    def wait(self, seconds: float) -> None:
        pass

    def statistics(self, *, num_lost: int) -> ArchiveStatistics:
        return ArchiveStatistics(num_blocks=len(self.kept), num_skipped=num_lost)

    def close(self, *, seconds: float) -> None:
        self.is_open = False

    def lose(self) -> None:
        """Some blocks are gone, as if others had needed the room."""
        for block_hash in list(self.kept):
            if self._happens(0.2):
                del self.kept[block_hash]

    def _read(self, request_id: int, hashes: list[BlockHash]) -> Piece:
        count = len(hashes) if self._source is None else self._source.randint(0, len(hashes))
        contents: list[Any] = []
        for block_hash in hashes[:count]:
            if self._happens(0.05):
                self.kept.pop(block_hash, None)
                self.num_damaged += 1
            if block_hash not in self.kept:
                break
            contents.append(self.kept[block_hash])
        is_last = len(contents) < count or count == len(hashes)
        found, hashes[:count] = hashes[: len(contents)], []
        return Piece(request_id, found, contents, is_last)

    def _happens(self, rate: float) -> bool:
        return self._source is not None and self._source.random() < rate
