"""Who waits to run, in order of rank, and who of them is admitted next.

Rules:
1. A request that does not fit now may be overtaken by smaller ones, `MAX_OVERTAKEN` times.
2. Further answers to one prompt wait until it is computed, then share its blocks.
3. A request whose prefix is being read from the archive waits for it, while others run.
4. Whoever waits holds no blocks.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping
from operator import attrgetter

from millstream.core.archived_prefixes import ArchivedPrefixes
from millstream.core.blocks import BlockPool
from millstream.core.sequence import Sequence
from millstream.core.states import StatePool

MAX_OVERTAKEN = 16

by_rank = attrgetter("rank")


class WaitingLine:
    """Mutated only by the scheduler that owns it."""

    def __init__(
        self, pool: BlockPool, states: StatePool | None, archived: ArchivedPrefixes
    ) -> None:
        self._pool, self._states, self._archived = pool, states, archived
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Lets a sequence wait at its rank, behind those of the same."""
        insort(self._sequences, sequence, key=by_rank)

    def remove(self, sequence: Sequence) -> None:
        """Forgets one that waits."""
        self._sequences.remove(sequence)

    def admit(
        self, *, num_running: int, limit: int, known: Mapping[int, Sequence]
    ) -> Iterator[Sequence]:
        """Those that run from now on, with their blocks, as long as the caller takes more.

        limit: how many may run. known: all sequences by request id, for those that follow another.
        """
        blocked: list[Sequence] = []
        for sequence in list(self._sequences):
            if num_running >= limit:
                break
            if _follows_one_in_prefill(sequence, known):
                continue
            if self._archived.is_awaited(sequence, spare=num_running):
                continue
            # One spare block per runner keeps an admission from causing a preemption at once.
            if sequence.acquire(self._pool, spare=num_running, state_pool=self._states):
                self._sequences.remove(sequence)
                num_running += 1
                for overtaken in blocked:
                    overtaken.num_overtaken += 1
                yield sequence
            elif sequence.num_overtaken >= MAX_OVERTAKEN:
                break
            else:
                blocked.append(sequence)

    def check(self) -> None:
        """Raises AssertionError unless all wait in order and hold nothing."""
        assert sorted(self._sequences, key=by_rank) == self._sequences, "waiting not in order"
        for sequence in self._sequences:
            assert (sequence.block_table, sequence.num_launched) == ([], 0), "waiting holds blocks"
            assert not sequence.open_chunks, "waiting and in a plan"


def _follows_one_in_prefill(sequence: Sequence, known: Mapping[int, Sequence]) -> bool:
    if sequence.request.follows is None:
        return False
    leader = known.get(sequence.request.follows)
    return leader is not None and leader.num_generated == 0
