"""Blocks of requests that have ended while open steps still write to them.

Rules:
1. Blocks become free when the last open step of their request has ended. Freed earlier, they could
   go to another request while that step still writes to them; and whether what it writes is finite
   is known only when it is over. So they are kept here, with the request's sequence, until then.
2. Blocks are suspect if a step that writes to them failed or had logits that were not finite,
   whoever ended the request: then their content is forgotten as a prefix, and has to be cleared.
"""

from __future__ import annotations

from collections.abc import Iterable

from millstream.core.blocks import BlockPool
from millstream.core.sequence import Sequence
from millstream.core.states import StatePool


class HeldBlocks:
    """Mutated only by the scheduler that owns it."""

    def __init__(self, pool: BlockPool, states: StatePool | None = None) -> None:
        self._pool, self._states = pool, states
        self._sequences: dict[int, Sequence] = {}
        self._suspects: set[int] = set()  # request ids
        self._unclean: list[int] = []

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._sequences

    def check(self, others: Iterable[Sequence]) -> None:
        """Raises AssertionError unless all references are those of held and `others`' sequences."""
        everybody = [*others, *self._sequences.values()]
        self._pool.check([sequence.block_table for sequence in everybody])
        if self._states is not None:
            self._states.check([s.states for s in everybody if s.states is not None])

    def hold(self, sequence: Sequence) -> None:
        """Takes over the blocks of a sequence; frees them at once if no step is open."""
        if sequence.open_chunks:
            self._sequences[sequence.request.id] = sequence
        else:
            sequence.release(self._pool)

    def close(self, request_id: int, *, is_suspect: bool = False) -> None:
        """One of the open steps of a request has ended."""
        sequence = self._sequences[request_id]
        sequence.close_chunk()
        if is_suspect:
            self._suspects.add(request_id)
        if sequence.open_chunks:
            return
        blocks, states = sequence.block_table, sequence.states
        sequence.release(self._pool)
        del self._sequences[request_id]
        if request_id in self._suspects:
            self._suspects.remove(request_id)
            self._unclean += self._pool.forget_free(blocks)
            if states is not None:
                states.forget()

    def take_unclean(self) -> list[int]:
        """Free blocks that may hold NaN, each given once."""
        blocks, self._unclean = self._unclean, []
        return blocks
