"""The thread that writes blocks, behind the engine's.

Rules:
1. What waits to be written is at most `_WRITE_BYTES`, and what is copied out of the cache between
   two steps at most `_TURN_BYTES`, so that no step waits noticeably.
2. Blocks that are not finite are not written: who reads them later could not tell why.
3. What cannot be written is skipped, and nothing is tried for `_PAUSE_SECONDS`. The first time the
   log says so.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from torch import Tensor

from millstream.core.blocks import BlockHash
from millstream.model.block_files.folder import BlockFolder
from millstream.model.block_files.memory import is_finite, memory_of
from millstream.model.paging.block_copies import BlockCopies
from millstream.model.transfers import HostCopy

log = logging.getLogger(__name__)

_TURN_BYTES = 2 * 2**20
_WRITE_BYTES = 64 * 2**20
_PAUSE_SECONDS = 30.0


class BlockWriter:
    """Writes blocks of one cache to one folder. changed: told of everything written."""

    def __init__(
        self,
        copies: BlockCopies,
        folder: BlockFolder,
        changed: threading.Condition,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._copies, self._folder, self._changed = copies, folder, changed
        self._clock = clock
        self._unwritten: set[BlockHash] = set()
        self._resumes_at: float | None = None
        self.num_written = self.num_skipped = 0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="block writer", daemon=True)
        self._thread.start()

    @property
    def num_takeable(self) -> int:
        """Blocks that `save()` takes now."""
        size = self._copies.block_bytes
        room = _WRITE_BYTES - len(self._unwritten) * size
        return max(min(room, _TURN_BYTES) // size, 0 if self._unwritten else 1)

    @property
    def is_writing(self) -> bool:
        """Whether saved blocks are still to be written."""
        return bool(self._unwritten)

    def save(self, blocks: Sequence[int], hashes: Sequence[BlockHash]) -> None:
        """Copies those of the blocks that are neither written nor about to be."""
        pairs = [pair for pair in zip(blocks, hashes, strict=True) if self._is_new(pair[1])]
        if not pairs:
            return
        copy = self._copies.read([block for block, _ in pairs])
        new = [block_hash for _, block_hash in pairs]
        with self._changed:
            self._unwritten.update(new)
        self._jobs.put(lambda: self._write(copy, new))

    def touch(self, hashes: Sequence[BlockHash]) -> None:
        """Makes those of a chain's blocks that are there the last to be dropped."""
        self._jobs.put(lambda: self._folder.touch(hashes))

    def close(self, *, seconds: float) -> None:
        """Ends the thread when all is written; waits at most so long."""
        self._jobs.put(None)
        self._thread.join(seconds)

    def _is_new(self, block_hash: BlockHash) -> bool:
        return block_hash not in self._unwritten and block_hash not in self._folder

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # last resort: the thread must not end
                log.exception("the prefix cache on disk: blocks were not kept")

    def _write(self, copy: HostCopy, hashes: Sequence[BlockHash]) -> None:
        left = list(hashes)
        try:
            for row in copy.wait():
                is_written = self._write_block(row, left[0])
                with self._changed:
                    self._unwritten.discard(left.pop(0))
                    self.num_written += is_written
                    self.num_skipped += not is_written
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._unwritten.difference_update(left)
                self.num_skipped += len(left)

    def _write_block(self, row: Tensor, block_hash: BlockHash) -> bool:
        is_pausing = self._resumes_at is not None and self._clock() < self._resumes_at
        if is_pausing or not is_finite(row, self._copies.dtype):
            return False
        try:
            self._folder.write(block_hash, memory_of(row))
            return True
        except OSError as error:
            if self._resumes_at is None:
                log.warning(
                    "the prefix cache on disk cannot be written: %s. It is tried again every %.0f "
                    "s; until then nothing is kept",
                    error,
                    _PAUSE_SECONDS,
                )
            self._resumes_at = self._clock() + _PAUSE_SECONDS
            return False
