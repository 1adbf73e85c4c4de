"""The benchmark of kept answers: its ratios are of pairs."""

from __future__ import annotations

from benchmarks.micro.kept_answers import Cost, report


def test_a_ratio_is_the_median_of_rounds() -> None:
    plain = [Cost(cpu, 0, 0) for cpu in (100.0, 200.0, 400.0)]
    stored = [Cost(cpu, 30, 60) for cpu in (110.0, 220.0, 800.0)]
    _, _, line = report({"response": plain, "response, stored": stored})
    assert line.split()[2:] == ["220.0", "4545", "1.100", "30.0", "60.0"]
