"""Histograms are summed without an error."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.metrics.histogram import TOKEN_SECONDS, Histogram

SECONDS = st.floats(min_value=0, max_value=1e12)


def filled(*values: float) -> Histogram:
    histogram = Histogram(TOKEN_SECONDS)
    for value in values:
        histogram.observe(value)
    return histogram


def exact_total(histogram: Histogram) -> Fraction:
    return sum(map(Fraction, histogram.remainder), Fraction(histogram.total))


def test_counts_are_added_bound_by_bound() -> None:
    histogram = filled(0.125, 0.5, 1000.0)
    histogram.add(filled(0.5, 0.75))
    both = filled(0.125, 0.5, 0.5, 0.75, 1000.0)
    assert list(histogram.cumulative()) == list(both.cumulative())
    assert histogram.total == both.total


@given(st.lists(st.lists(SECONDS, max_size=4), max_size=6), st.randoms())
def test_the_order_of_summands_does_not_matter(parts: list[list[float]], source: object) -> None:
    """Not even if some of them are summed among themselves before."""
    summands = [filled(*values) for values in parts]
    expected = sum((Fraction(each.total) for each in summands), Fraction(0))
    while len(summands) > 1:
        first = summands.pop(source.randrange(len(summands)))  # type: ignore[attr-defined]
        summands[source.randrange(len(summands))].add(first)  # type: ignore[attr-defined]
    for each in summands:
        assert exact_total(each) == expected
        assert each.total == float(expected)


def test_a_small_value_beside_a_large_one_is_not_lost() -> None:
    histogram = filled(1e12)
    for _ in range(3):
        histogram.add(filled(1e-9))
    assert exact_total(histogram) == Fraction(1e12) + 3 * Fraction(1e-9)
    assert histogram.total == 1e12


def test_other_bounds_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="different bounds"):
        filled(1.0).add(Histogram((1.0, 2.0)))
