"""What decode rows add to the time of a step, learnt from steps that were measured.

On a CPU a step with a few rows takes hardly longer than with one, since it waits for the weights;
with many rows each adds its share. Where that begins depends on the model, the processor and how
the weights are stored. So the latest times are kept by the number of rows.

Rules:
1. A measurement counts for at most twice what was measured before.
2. Guesses fill a step up to one of a few sizes only, so that each is measured often enough.
3. A size that was never measured is taken to cost little, and what was measured long ago is trusted
   less and less. Else one bad measurement would keep a size from being tried, and measured, again.
"""

from __future__ import annotations

SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_FIRST_SHARE = 0.02  # of a step without guesses, that each of their rows is taken to cost
_WEIGHT = 0.3  # of a measurement
_DOUBT = 0.998  # what a step of another size leaves of the trust in a measurement
_LONGEST = 100  # steps for which a number of rows is known


class RowCosts:
    """Times of steps by their number of decode rows. Mutated by `observe()` only."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._measured: dict[int, int] = {}  # in which step
        self._num_steps = 0

    def observe(self, rows: int, seconds: float) -> None:
        """A step with so many decode rows, and nothing else, took so long."""
        self._num_steps += 1
        self._measured[rows] = self._num_steps
        before = self._seconds.get(rows, seconds)
        self._seconds[rows] = before + (min(seconds, 2 * before) - before) * _WEIGHT

    def knows(self, rows: int) -> bool:
        """Whether a step with so many rows was measured not long ago."""
        measured = self._measured.get(rows)
        return measured is not None and self._num_steps - measured < _LONGEST

    def ratio(self, rows: int, *, filled_to: int) -> float:
        """How many times as long a step takes that guesses fill up from `rows` to `filled_to`: 1 or
        more. rows: a number that is known."""
        measured = self._measured.get(filled_to)
        if measured is None:
            return 1 + _FIRST_SHARE * (filled_to - rows)
        surplus = max(self._seconds[filled_to] / self._seconds[rows] - 1, 0.0)
        return 1 + surplus * _DOUBT ** (self._num_steps - measured)
