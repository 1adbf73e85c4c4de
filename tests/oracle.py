"""Guesses that are right as often as a test wants."""

from __future__ import annotations

from collections.abc import Callable

from millstream.core.request import Request
from millstream.core.row_costs import RowCosts
from tests.fakes import VOCAB, alone


class Oracle:
    """A predictor that knows the answer, and tells the truth as often as it is asked to."""

    rate = 0.9

    def __init__(
        self,
        request: Request,
        is_right: Callable[[], bool] = lambda: True,
        *,
        answer: list[int] | None = None,
    ) -> None:
        self._tokens = [*request.prompt, *(alone(request) if answer is None else answer)]
        self._is_right = is_right
        self.predicts = False

    def advance(self, tokens: list[int]) -> None:
        assert tokens == self._tokens[: len(tokens)], "the sequence is not what it answers alone"
        self.predicts = len(tokens) < len(self._tokens)

    def guess(self, tokens: list[int], count: int) -> tuple[int, ...]:
        following = [*self._tokens, *range(count)][len(tokens) : len(tokens) + count]
        return tuple(t if self._is_right() else (t + 1) % VOCAB for t in following)


class FreeRows(RowCosts):
    """Rows that cost nothing."""

    def knows(self, rows: int) -> bool:
        return True

    def ratio(self, rows: int, *, filled_to: int) -> float:
        return 1.0
