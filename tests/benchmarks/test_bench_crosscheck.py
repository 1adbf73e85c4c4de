"""The comparison with the other client: what is compared, and what counts as close."""

from __future__ import annotations

import pytest

from benchmarks.crosscheck import Figures, compare
from benchmarks.measures import Record, Slo, summarise
from benchmarks.peers import ServerProblem

THEIRS = {"output_throughput": 40.0, "median_ttft_ms": 100.0, "median_tpot_ms": 50.0}


def figures(tokens_per_s: float = 100.0, ttft: float = 50.0, tpot: float = 20.0) -> Figures:
    return Figures(tokens_per_s=tokens_per_s, ttft_ms=ttft, tpot_ms=tpot)


def test_both_clients_report_the_same_figures() -> None:
    record = Record(
        outcome="completed", started=0.0, ended=0.2, times=(0.1, 0.15, 0.2), tokens=3, asked=3
    )
    summary = summarise([record, record], duration=0.15, client_cpu_seconds=0.0, slo=Slo())
    ours = Figures.of_ours(summary)
    assert ours == Figures(
        tokens_per_s=pytest.approx(40.0), ttft_ms=pytest.approx(100.0), tpot_ms=pytest.approx(50.0)
    )
    assert ours == Figures.of_theirs({**THEIRS, "failed": 0})


def test_failed_requests_are_no_figures() -> None:
    failed = Record(outcome="failed", started=0.0, ended=0.1, error="cut")
    good = Record(outcome="completed", started=0.0, ended=0.2, times=(0.1, 0.2), tokens=2)
    summary = summarise([good, failed], duration=1.0, client_cpu_seconds=0.0, slo=Slo())
    with pytest.raises(ServerProblem, match="cut"):
        Figures.of_ours(summary)
    with pytest.raises(ServerProblem, match="2 requests"):
        Figures.of_theirs({**THEIRS, "failed": 2})


@pytest.mark.parametrize(
    ("ours", "is_close"),
    [
        (figures(104.0, 48.0, 20.9), True),
        (figures(tokens_per_s=106.0), False),
        (figures(ttft=47.0), False),
        (figures(tpot=21.5), False),
    ],
)
def test_every_figure_has_to_be_close(
    ours: Figures, is_close: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    low, high = figures(1.0, 1.0, 1.0), figures(1e4, 1e4, 1e4)
    assert compare([low, ours, high], [figures()] * 3, limit=0.05) is is_close
    assert "difference" in capsys.readouterr().out
