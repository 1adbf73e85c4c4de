"""Who runs, in order of rank: what decodes in the next step, and who makes room for it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from millstream.core.blocks import BlockPool
from millstream.core.plan import Chunk
from millstream.core.sequence import Sequence
from millstream.core.waiting_line import WaitingLine, by_rank


class RunningSet:
    """Mutated only by the scheduler that owns it."""

    def __init__(self, pool: BlockPool, waiting: WaitingLine) -> None:
        """waiting: where sequences go that are preempted."""
        self._pool, self._waiting = pool, waiting
        self._sequences: list[Sequence] = []
        self.num_preemptions = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._sequences

    def add(self, sequence: Sequence) -> None:
        """Lets a sequence run that holds its blocks."""
        insort(self._sequences, sequence, key=by_rank)

    def remove(self, sequence: Sequence) -> None:
        """Forgets one that runs; its blocks stay its own."""
        self._sequences.remove(sequence)

    def can_go_ahead(self) -> bool:
        """Whether there is a slot for the next token of everybody who runs."""
        num_free, size = self._pool.num_free, self._pool.block_size
        has_plenty = num_free >= len(self._sequences)
        return has_plenty or sum(not s.has_room(size) for s in self._sequences) <= num_free

    def decode_chunks(self) -> dict[int, Chunk]:
        """One token of everybody who decodes, by request id, with room made for it."""
        chunks: dict[int, Chunk] = {}
        for sequence in tuple(self._sequences):
            if sequence.num_pending != 1 or not sequence.block_table or sequence.will_end:
                continue
            if self._grow(sequence, chunks):
                chunks[sequence.request.id] = sequence.chunk(1)
        return chunks

    def check(self) -> None:
        """Raises AssertionError unless all run in order, with blocks that fit their tokens."""
        assert sorted(self._sequences, key=by_rank) == self._sequences, "running not in order"
        for sequence in self._sequences:
            sequence.check(self._pool.block_size)

    def _grow(self, sequence: Sequence, chunks: dict[int, Chunk]) -> bool:
        """Makes room for the pending token, preempting the worst ranks; False if preempted."""
        while not sequence.grow(self._pool):
            victim = self._sequences[-1]
            opened = chunks.pop(victim.request.id, None)
            assert len(victim.open_chunks) == (opened is not None), "a plan writes to its blocks"
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._sequences.remove(sequence)
        sequence.release(self._pool)
        self.num_preemptions += 1
        self._waiting.add(sequence)
