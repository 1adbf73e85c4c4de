"""Which guesses a step tries, and what came of them.

A sequence that decodes may get, beside the row of its next token, rows for tokens that are guessed
to follow it (see lookup.py). They are decode rows like all others: where a guess turns out to be
the token that is drawn, the row after it has saved a step. Elsewhere it has changed nothing.

How many are tried follows from what they are worth. The i-th guess of a sequence comes true with
about the i-th power of its rate. Guesses are taken in the order of that, as many as make the most
tokens for the time that the step will take: at one stream most of them, where rows are costly few,
and none of a sequence that cannot be foretold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from itertools import accumulate, takewhile
from typing import Protocol

from millstream.core.blocks import BlockPool
from millstream.core.lookup import Lookup
from millstream.core.plan import REJECTED_TOKEN, Chunk, Plan
from millstream.core.request import Request
from millstream.core.row_costs import SIZES, RowCosts
from millstream.core.sequence import Sequence

MOST_GUESSES = 8
_LEAST_CHANCE = 0.05


class Predictor(Protocol):
    """What may come next in one sequence. `Lookup` is one."""

    @property
    def predicts(self) -> bool:
        """Whether anything is known of the next token."""
        ...

    @property
    def rate(self) -> float:
        """Which part of the latest predictions came true, between 0 and 1."""
        ...

    def advance(self, tokens: list[int]) -> None:
        """Takes up what was added to `tokens`."""
        ...

    def guess(self, tokens: list[int], count: int) -> tuple[int, ...]:
        """Up to `count` tokens that may come next. tokens: as `advance()` got them last."""
        ...


def look_up(request: Request) -> Predictor:
    """What a sequence's own tokens say."""
    return Lookup(len(request.prompt))


class Guesses:
    """Decides about guesses. Mutated only by the scheduler that owns it.

    num_drafts: how often a sequence had some in a step. num_draft_tokens: how many those were.
    num_accepted_tokens: how many came true.
    """

    def __init__(
        self,
        most: int = 0,
        *,
        costs: RowCosts | None = None,
        predictor: Callable[[Request], Predictor] = look_up,
    ) -> None:
        """most: for a sequence in a step; 0 turns guessing off. costs: by default learnt anew.
        predictor: makes one for a request that begins to decode."""
        self._most = most
        self._costs = costs or RowCosts()
        self._predictor = predictor
        self._predictors: dict[int, Predictor | None] = {}  # by request id; None: no more guesses
        self.num_drafts = self.num_draft_tokens = self.num_accepted_tokens = 0

    def chunks(
        self, running: Iterable[Sequence], *, pool: BlockPool, may_grow: bool, room: int
    ) -> list[Chunk]:
        """Guesses for the step in which those that decode have just got a chunk.

        may_grow: whether they may take free blocks of `pool`. room: most chunks.
        """
        if not self._most:
            return []
        decoding = [sequence for sequence in running if sequence.open_chunks]
        if not self._costs.knows(len(decoding)):
            return []
        chunks: list[Chunk] = []
        for sequence, count in self._counts(decoding, room):
            guess = self._guess(sequence, count)
            is_held = pool.blocks_for(sequence.num_launched + count) <= len(sequence.block_table)
            if (is_held or may_grow) and sequence.grow(pool, len(guess)):
                assuming = _assuming(sequence.open_chunks[-1], guess)
                sequence.open_chunks += assuming
                chunks += assuming
        return chunks

    def forget(self, request_id: int) -> None:
        """A sequence has left."""
        self._predictors.pop(request_id, None)

    def observe(self, plan: Plan, tokens: Seq[int], seconds: float | None) -> None:
        """A step has ended. tokens: of its output. seconds: that it took, if that is known."""
        if not self._most:
            return
        if seconds is not None and all(c.is_last and len(c.tokens) == 1 for c in plan.chunks):
            self._costs.observe(len(plan.chunks), seconds)
        sampled = (chunk for chunk in plan.chunks if chunk.is_last)
        for chunk, token in zip(sampled, tokens, strict=True):
            if token == REJECTED_TOKEN and not chunk.assumed:
                self._predictors[chunk.request_id] = None
            if chunk.assumed:
                self.num_drafts += len(chunk.assumed) == 1
                self.num_draft_tokens += 1
                self.num_accepted_tokens += token != REJECTED_TOKEN

    def _counts(self, decoding: Seq[Sequence], room: int) -> list[tuple[Sequence, int]]:
        """How many guesses to try, of which sequences."""
        chances: list[tuple[float, int]] = []
        for number, sequence in enumerate(decoding):
            rate, chance = self._rate(sequence), 1.0
            num_left = sequence.request.max_tokens - sequence.num_generated
            for _ in range(min(self._most, num_left - 1)):
                chance *= rate
                if chance < _LEAST_CHANCE:
                    break
                chances.append((chance, number))
        chances.sort(reverse=True)
        best = self._worthwhile([chance for chance, _ in chances[:room]], len(decoding))
        counts = Counter(number for _, number in chances[:best])
        return [(decoding[number], count) for number, count in counts.items()]

    def _rate(self, sequence: Sequence) -> float:
        """How likely it is that what is known to follow the sequence does; 0 if nothing is."""
        request = sequence.request
        if request.id not in self._predictors:
            self._predictors[request.id] = self._predictor(request)
        predictor = self._predictors[request.id]
        if predictor is None:
            return 0.0
        predictor.advance(sequence.tokens)
        return predictor.rate if predictor.predicts else 0.0

    def _guess(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        """Up to `count` guesses; nothing comes after the end of the answer."""
        predictor, stops = self._predictors[sequence.request.id], sequence.request.stop_token_ids
        assert predictor is not None, "a sequence without a rate has a guess"
        guess = predictor.guess(sequence.tokens, count)
        return tuple(takewhile(lambda token: token not in stops, guess))

    def _worthwhile(self, chances: Seq[float], rows: int) -> int:
        """How many guesses with these chances, from the first on, make the most tokens a second.

        rows: of the step without them.
        """
        most, best, expected = float(rows), 0, list(accumulate(chances, initial=float(rows)))
        for size in SIZES[bisect_right(SIZES, rows) : bisect_right(SIZES, rows + len(chances))]:
            value = expected[size - rows] / self._costs.ratio(rows, filled_to=size)
            if value > most:
                most, best = value, size - rows
        return best


def _assuming(chunk: Chunk, guess: tuple[int, ...]) -> list[Chunk]:
    """A chunk for each token that is guessed to follow `chunk`, which has one token."""
    return [
        chunk._replace(tokens=guess[end - 1 : end], start=chunk.start + end, assumed=guess[:end])
        for end in range(1, len(guess) + 1)
    ]
