"""Slots for the states of sequences: what layers keep that do not attend to all earlier tokens.

Such a layer (a gated delta rule, Mamba, a short convolution) keeps numbers of a fixed size for each
sequence, and a step replaces them. One slot holds them for all layers, after a known number of
tokens. Keys and values of any prefix are still there when a sequence goes on; its state is not. So
the prefix cache of a model with states consists of snapshots: slots that nobody writes any more.

Rules:
1. A sequence that runs owns `num_own` slots and writes its state to them. Where steps are planned
   ahead it owns two and takes turns, because the last step may turn out to be void, and the state
   before it is needed again. Otherwise it writes in place.
2. A snapshot is made by writing into a free slot instead, and going on from there into an own one:
   nothing is copied. It is known by the hash of the blocks before it once its step is committed.
3. Snapshots that nobody holds are forgotten when slots are needed, least recently used first. Where
   all slots are held, no snapshot is made.
4. A snapshot lies at the end of a full block: one near the end of the prompt, because the next turn
   of a conversation repeats it; one at every `interval` tokens; and the latest of the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from millstream.core.blocks import BlockHash, BlockPool
from millstream.core.plan import StateMove
from millstream.core.status import EngineInfo

MARGIN = 8
"""Tokens at the end of a prompt that its snapshot leaves out: templates end a prompt with what
opens the answer, and the next turn may have another text there."""


class StatePool:
    """All slots, and how they are shared out. Mutated only by the scheduler that owns it."""

    def __init__(
        self, *, num_slots: int, block_size: int, num_own: int = 1, interval: int = 512
    ) -> None:
        """block_size: of the prefix cache. num_own: see rule 1. interval: see rule 4, in tokens."""
        if num_slots < num_own:
            raise ValueError("num_slots must be at least num_own: one sequence has to run")
        self.slots = BlockPool(num_blocks=num_slots, block_size=1)
        self.block_size = block_size
        self.num_own = num_own
        self.interval = -(-interval // block_size) * block_size

    @classmethod
    def of(cls, info: EngineInfo) -> StatePool | None:
        """The pool of an engine whose model has states."""
        if not info.num_states:
            return None
        return cls(num_slots=info.num_states, block_size=info.block_size, num_own=info.own_states)

    def snapshot_ends(self, start: int, end: int, *, prompt: int) -> list[int]:
        """Positions in (start, end] after which a snapshot is wanted, ascending; see rule 4.

        prompt: its length in tokens; what lies behind it is the answer.
        """
        size, step = self.block_size, self.interval
        if end - start == 1 and end > prompt:  # most chunks
            return [] if end % size else [end]
        ends = set(range(start // step * step + step, min(end, prompt - 1) + 1, step))
        latest = end // size * size
        near_end = max(prompt - MARGIN, 0) // size * size
        ends |= {near_end, latest if latest > prompt else 0}
        return sorted(position for position in ends if start < position <= end)

    def check(self, sequences: Iterable[SequenceStates]) -> None:
        """Raises AssertionError unless references equal what the sequences hold."""
        self.slots.check([states.slots for states in sequences])


class _Open(NamedTuple):
    """What an open chunk writes: the slot of the state after it, and snapshots as (position, slot),
    the last of which may be that slot."""

    target: int
    snapshots: list[tuple[int, int]]


class SequenceStates:
    """The slots of one sequence that runs. Mutated only by its sequence.

    prompt: tokens of its prompt. The computed slot holds the state after its computed tokens, the
    launched one the state after those of its open chunks too; None where there is none yet. The
    latest is the snapshot of the answer, which the next one replaces.
    """

    __slots__ = ("_computed", "_latest", "_launched", "_made", "_open", "_own", "_pool", "_prompt")

    def __init__(
        self, pool: StatePool, own: list[int], snapshot: int | None, *, prompt: int
    ) -> None:
        self._pool = pool
        self._own = own
        self._computed = self._launched = snapshot
        self._prompt = prompt
        self._open: deque[_Open] = deque()
        self._latest: int | None = None
        self._made: list[int] = []

    @classmethod
    def acquire(
        cls, pool: StatePool, hashes: Sequence[BlockHash], *, prompt: int
    ) -> tuple[SequenceStates, int] | None:
        """The slots of a sequence that begins to run, and how many of the blocks with these hashes
        lie before its snapshot (0: it has none). None if too few slots are free."""
        slots = pool.slots
        if slots.num_free < pool.num_own:
            return None
        counts = range(len(hashes), 0, -1)
        depth = next((count for count in counts if slots.is_known(hashes[count - 1])), 0)
        snapshot = slots.acquire_prefix(hashes[depth - 1 : depth]) if depth else []
        own = slots.allocate(pool.num_own)
        if own is None:
            slots.release(snapshot)
            return None
        return cls(pool, own, snapshot[0] if snapshot else None, prompt=prompt), depth

    @property
    def slots(self) -> list[int]:
        """All slots that the sequence holds a reference on."""
        held = [slot for chunk in self._open for _, slot in chunk.snapshots]
        return [*self._own, *self._held_snapshot(), *held]

    def open(self, start: int, end: int) -> tuple[StateMove, ...]:
        """What the next chunk does, which computes the tokens from position `start` to `end`."""
        first = source = self._launched
        moves: list[StateMove] = []
        made: list[tuple[int, int]] = []
        for position in self._pool.snapshot_ends(start, end, prompt=self._prompt):
            if taken := self._pool.slots.allocate(1):
                moves.append(StateMove(position - start, source, taken[0]))
                made.append((position, taken[0]))
                start, source = position, taken[0]
        if start < end:
            # The slot before the chunk is kept where there are two: see rule 1.
            target = self._own[-1] if self._own[0] == first else self._own[0]
            moves.append(StateMove(end - start, source, target))
        self._launched = moves[-1].target
        self._open.append(_Open(moves[-1].target, made))
        return tuple(moves)

    def close(self, hashes: Sequence[BlockHash]) -> None:
        """The oldest open chunk is computed, and its snapshots can be found by others.

        hashes: of the sequence's full blocks.
        """
        chunk, slots = self._open.popleft(), self._pool.slots
        slots.release(self._held_snapshot())
        self._computed = chunk.target
        for position, slot in chunk.snapshots:
            slots.publish(slot, hashes[position // self._pool.block_size - 1])
            self._made.append(slot)
            if position > self._prompt:
                self._replace_latest(slot)
            if slot != chunk.target:
                slots.release([slot])

    def make_void(self) -> None:
        """What comes next goes on from the computed slot, not from those of open chunks."""
        self._launched = self._computed

    def close_void(self) -> None:
        """The oldest open chunk is over, and nothing of it counts."""
        self._pool.slots.release([slot for _, slot in self._open.popleft().snapshots])

    def release(self) -> None:
        """Gives all slots back."""
        self._pool.slots.release(self.slots)
        self._open.clear()
        self._own, self._computed = [], None

    def forget(self) -> None:
        """Makes what nobody holds of this sequence's snapshots unknown: they may hold NaN."""
        self._pool.slots.forget_free(self._made)

    def _held_snapshot(self) -> list[int]:
        """The computed slot where it is a snapshot, on which the sequence holds a reference."""
        slot = self._computed
        return [] if slot is None or slot in self._own else [slot]

    def _replace_latest(self, slot: int) -> None:
        if self._latest is not None:
            self._pool.slots.forget_free([self._latest])
            self._made.remove(self._latest)
        self._latest = slot
