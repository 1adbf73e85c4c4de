"""The thread that reads blocks for requests that wait for them.

Rules:
1. Blocks arrive in pieces of about `_PIECE_BYTES`. What has been read and not been taken is at most
   `_READ_BYTES` and a piece.
2. A fetch ends at the first block that is not there.
3. A disk that gives nothing within `_FETCH_SECONDS` is not asked again before it has answered; the
   requests that wait for it are let go.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from millstream.core.archive import Piece
from millstream.core.blocks import BlockHash
from millstream.model.block_files.folder import BlockFolder
from millstream.model.block_files.memory import memory_of

log = logging.getLogger(__name__)

_PIECE_BYTES = 8 * 2**20
_READ_BYTES = 32 * 2**20
_FETCH_SECONDS = 10.0


@dataclass(eq=False, slots=True)
class _Fetch:
    """deadline: when the disk should have answered. is_over: nobody waits for it any more."""

    request_id: int
    hashes: Sequence[BlockHash]
    deadline: float
    is_over: bool = False


class BlockReader:
    """Reads blocks of `block_bytes` from one folder. changed: told of everything that arrives."""

    def __init__(
        self,
        folder: BlockFolder,
        changed: threading.Condition,
        *,
        block_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._folder, self._changed = folder, changed
        self._block_bytes = block_bytes
        self._clock = clock
        self._fetches: dict[int, _Fetch] = {}
        self._arrived: deque[tuple[_Fetch, Piece]] = deque()
        self.is_stuck = False
        self.num_read = 0
        self._jobs: queue.SimpleQueue[_Fetch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="block reader", daemon=True)
        self._thread.start()

    @property
    def has_arrived(self) -> bool:
        """Whether there are pieces to be taken."""
        return bool(self._arrived)

    @property
    def is_reading(self) -> bool:
        """Whether somebody waits for a fetch."""
        return bool(self._fetches)

    def fetch(self, request_id: int, hashes: Sequence[BlockHash]) -> None:
        """Begins to read these blocks."""
        fetch = _Fetch(request_id, hashes, self._clock() + _FETCH_SECONDS)
        self._fetches[request_id] = fetch
        self._jobs.put(fetch)

    def take_arrived(self) -> list[Piece]:
        """The next piece that has arrived, and an empty last one for each fetch that takes too
        long. Intentional: one, since putting it into the cache makes the next step wait."""
        pieces: list[Piece] = []
        with self._changed:
            now = self._clock()
            if self._arrived:
                fetch, piece = self._arrived.popleft()
                pieces.append(piece)
                fetch.deadline = now + _FETCH_SECONDS
                if piece.is_last:
                    self._end(fetch)
            for fetch in [each for each in self._fetches.values() if each.deadline <= now]:
                self._end(fetch)
                pieces.append(_nothing_for(fetch))
                if not self.is_stuck:
                    self.is_stuck = True
                    log.warning("the prefix cache on disk does not answer; prompts are computed")
            self._changed.notify_all()
        return pieces

    def give_up(self, request_id: int) -> None:
        """Nobody waits any more for what was fetched for this request."""
        with self._changed:
            if request_id in self._fetches:
                self._end(self._fetches[request_id])
                self._changed.notify_all()

    def close(self, *, seconds: float) -> None:
        """Ends the thread once the block that it reads is there; waits at most so long."""
        with self._changed:
            for fetch in list(self._fetches.values()):
                self._end(fetch)
            self._changed.notify_all()
        self._jobs.put(None)
        self._thread.join(seconds)

    def _end(self, fetch: _Fetch) -> None:
        fetch.is_over = True
        self._fetches.pop(fetch.request_id, None)
        self._arrived = deque(pair for pair in self._arrived if pair[0] is not fetch)

    def _run(self) -> None:
        while (fetch := self._jobs.get()) is not None:
            try:
                self._read(fetch)
            except Exception:  # last resort: the thread must not end, and nobody wait for ever
                log.exception("the prefix cache on disk: blocks were not read")
                self._deliver(fetch, _nothing_for(fetch))
            self.is_stuck = False

    def _read(self, fetch: _Fetch) -> None:
        count = max(_PIECE_BYTES // self._block_bytes, 1)
        for first in range(0, len(fetch.hashes), count):
            wanted = fetch.hashes[first : first + count]
            contents = torch.empty(len(wanted), self._block_bytes // 8, dtype=torch.int64)
            num_found = 0
            while num_found < len(wanted) and not fetch.is_over:
                if not self._folder.read(wanted[num_found], memory_of(contents[num_found])):
                    break
                num_found += 1
            is_last = num_found < len(wanted) or first + count >= len(fetch.hashes)
            found = wanted[:num_found]
            self._deliver(fetch, Piece(fetch.request_id, found, contents[:num_found], is_last))
            if is_last:
                break

    def _deliver(self, fetch: _Fetch, piece: Piece) -> None:
        """Hands a piece over, once there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: fetch.is_over or self._has_room())
            if not fetch.is_over:
                self._arrived.append((fetch, piece))
                self.num_read += len(piece.hashes)
                self._changed.notify_all()

    def _has_room(self) -> bool:
        num_blocks = sum(len(piece.hashes) for _, piece in self._arrived)
        return num_blocks * self._block_bytes < _READ_BYTES


def _nothing_for(fetch: _Fetch) -> Piece:
    return Piece(fetch.request_id, (), None, is_last=True)
