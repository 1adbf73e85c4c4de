"""How long a step takes, learned from those that were measured.

A step takes a fixed time, and some for each sequence that decodes, for each key that those read,
for each prompt token, and for each key that prompt tokens read. The five rates are those whose
relative errors have the smallest squares, and none is negative.

Rules:
1. Errors are relative: a step that something else on the machine held up counts little.
2. Steps with prompts and steps without are forgotten apart, so that hours of one kind do not wash
   away what the other kind costs.
3. No clock: whoever observes says how long it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import NamedTuple

from millstream.core.plan import Chunk, Plan

_KEPT = 1 - 1 / 32  # of what was known, at each step of the same kind
_SWEEPS, _SETTLED = 200, 1e-3
_RIDGE = 1e-4  # of each rate's own weight: what cannot be told apart is shared out

Work = tuple[float, float, float, float, float]
"""One step; sequences that decode; keys they read; prompt tokens; keys those read."""


class Rates(NamedTuple):
    """Seconds that each part of a step's work takes."""

    step: float = 0.0
    decode_row: float = 0.0
    decode_key: float = 0.0
    prompt_token: float = 0.0
    prompt_key: float = 0.0

    def seconds(self, work: Work) -> float:
        """What a step with this work takes."""
        return sum(rate * amount for rate, amount in zip(self, work, strict=True))

    def prompt_tokens_in(self, seconds: float, *, start: int) -> int:
        """How many tokens of a prompt, from position `start` on, can be computed in that time."""
        if seconds <= 0:
            return 0
        # Token number n reads start + n keys: the time grows with the square of their number.
        linear, square = self.prompt_token + self.prompt_key * start, self.prompt_key / 2
        root = linear + sqrt(linear * linear + 4 * square * seconds)
        return int(2 * seconds / root) if root else 2**31


class StepCosts:
    """Learns from measured steps. Mutated only by `observe()` and by what it is asked."""

    def __init__(self) -> None:
        self._kinds = (_Memory(), _Memory())  # steps without prompts, and with
        self._rates = Rates()
        self._is_fitted = True

    @property
    def rates(self) -> Rates | None:
        """What is known of each rate; None before steps with prompts and with answers were seen."""
        without, with_prompts = self._kinds
        has_answers = without.has_any or with_prompts.has_answers
        if not (with_prompts.has_any and has_answers):
            return None
        if not self._is_fitted:
            self._rates = _fit(self._kinds, self._rates)
            self._is_fitted = True
        return self._rates

    def observe(self, plan: Plan, seconds: float) -> None:
        """Takes note of a step that was computed alone, and how long that took."""
        if seconds > 0:
            work = work_of(plan.chunks)
            has_prompts = work[3] > 0
            self._kinds[has_prompts].add(work, seconds)
            self._is_fitted = False


def work_of(chunks: Iterable[Chunk]) -> Work:
    """What a step of these chunks has to do."""
    rows = decode_keys = tokens = prompt_keys = 0
    for chunk in chunks:
        length = len(chunk.tokens)
        if length == 1 and chunk.is_last:
            rows += 1
            decode_keys += chunk.start
        else:
            tokens += length
            prompt_keys += length * chunk.start + length * length // 2
    return 1.0, float(rows), float(decode_keys), float(tokens), float(prompt_keys)


def prompt_work(length: int, *, start: int) -> Work:
    """What so many prompt tokens, from position `start` on, add to a step."""
    return 0.0, 0.0, 0.0, float(length), float(length * start + length * length // 2)


class _Memory:
    """The sums that a fit needs of steps of one kind, in which old steps fade."""

    def __init__(self) -> None:
        self.squares = [[0.0] * 5 for _ in range(5)]
        self.targets = [0.0] * 5

    @property
    def has_any(self) -> bool:
        return self.targets[0] > 0

    @property
    def has_answers(self) -> bool:
        return self.targets[1] > 0

    def add(self, work: Work, seconds: float) -> None:
        parts = [amount / seconds for amount in work]
        for part, row in zip(parts, self.squares, strict=True):
            row[:] = [_KEPT * old + part * other for old, other in zip(row, parts, strict=True)]
        both = zip(self.targets, parts, strict=True)
        self.targets = [_KEPT * old + part for old, part in both]


def _fit(kinds: Sequence[_Memory], start: Rates) -> Rates:
    """The rates, none negative, by descent along one after the other from `start`."""
    squares = [
        [one + other for one, other in zip(*rows, strict=True)]
        for rows in zip(*(kind.squares for kind in kinds), strict=True)
    ]
    targets = [sum(each) for each in zip(*(kind.targets for kind in kinds), strict=True)]
    rates = list(start)
    for _ in range(_SWEEPS):
        before = tuple(rates)
        for index, row in enumerate(squares):
            if own := row[index]:
                others = sum(a * b for a, b in zip(row, rates, strict=True)) - own * rates[index]
                rates[index] = max(0.0, (targets[index] - others) / (own * (1 + _RIDGE)))
        pairs = zip(rates, before, strict=True)
        if all(abs(new - old) <= _SETTLED * new for new, old in pairs):
            break
    return Rates(*rates)
