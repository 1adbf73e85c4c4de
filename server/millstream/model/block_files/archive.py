"""The engine's archive over files. Its thread copies blocks between the cache and memory; others
read and write files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from millstream.core.archive import ArchiveStatistics, Piece
from millstream.core.blocks import BlockHash
from millstream.model.block_files.folder import BlockFolder
from millstream.model.block_files.reader import BlockReader
from millstream.model.block_files.writer import BlockWriter
from millstream.model.paging.block_copies import BlockCopies


class FileArchive:
    """Keeps blocks of one cache in one folder. A `BlockArchive`, which says what each call does."""

    def __init__(
        self,
        copies: BlockCopies,
        folder: BlockFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._copies, self._folder = copies, folder
        self._changed = threading.Condition()
        self._writer = BlockWriter(copies, folder, self._changed, clock=clock)
        self._reader = BlockReader(
            folder, self._changed, block_bytes=copies.block_bytes, clock=clock
        )

    @property
    def num_takeable(self) -> int:
        return self._writer.num_takeable

    @property
    def is_writing(self) -> bool:
        return self._writer.is_writing

    def __contains__(self, block_hash: BlockHash) -> bool:
        return block_hash in self._folder and not self._reader.is_stuck

    def touch(self, hashes: Sequence[BlockHash]) -> None:
        self._writer.touch(hashes)

    def save(self, blocks: Sequence[int], hashes: Sequence[BlockHash]) -> None:
        self._writer.save(blocks, hashes)

    def fetch(self, request_id: int, hashes: Sequence[BlockHash]) -> None:
        self._reader.fetch(request_id, hashes)

    def take_arrived(self) -> list[Piece]:
        return self._reader.take_arrived()

    def restore(self, piece: Piece, blocks: Sequence[int]) -> None:
        if blocks:
            self._copies.write(blocks, piece.contents)

    def give_up(self, request_id: int) -> None:
        self._reader.give_up(request_id)

    def wait(self, seconds: float) -> None:
        with self._changed:
            is_busy = self._reader.is_reading or self._writer.is_writing
            if is_busy and not self._reader.has_arrived:
                self._changed.wait(seconds)

    def statistics(self, *, num_lost: int) -> ArchiveStatistics:
        size, reader, writer = self._copies.block_bytes, self._reader, self._writer
        return ArchiveStatistics(
            num_blocks=self._folder.num_blocks,
            num_bytes=self._folder.num_bytes,
            num_read=reader.num_read,
            bytes_read=reader.num_read * size,
            num_written=writer.num_written,
            bytes_written=writer.num_written * size,
            num_skipped=writer.num_skipped + num_lost,
            num_damaged=self._folder.num_damaged,
        )

    def close(self, *, seconds: float) -> None:
        self._writer.close(seconds=seconds)
        self._reader.close(seconds=min(seconds, 1.0))
