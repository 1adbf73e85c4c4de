"""The scheduler on simulated steps, as `benchmarks.micro.step_budget` plays it."""

from __future__ import annotations

import pytest

from benchmarks.micro.step_budget import MACHINES, make_scheduler, play, report
from benchmarks.workloads import WORKLOADS, alter
from millstream.core.scheduler import Scheduler

C4 = alter(WORKLOADS["c4"], conversations=12, prompt=600, answer=None)


def scheduler(target: float | None) -> Scheduler:
    return make_scheduler(max_step_tokens=1024, target=target)


def test_all_questions_are_answered_and_the_figures_are_those_of_the_steps() -> None:
    rates, _ = MACHINES["bench-600m"]
    summary = play(C4, rates, scheduler(None))
    assert (summary.completed, summary.output_tokens) == (12, 12 * 64)
    assert summary.ttft_ms.p50 is not None
    assert summary.ttft_ms.p50 > 600 * rates.prompt_token * 1000
    assert summary == play(C4, rates, scheduler(None)), "the same on every run"


def test_a_target_bounds_the_longest_gaps() -> None:
    rates, _ = MACHINES["bench-600m"]
    whole, bounded = (play(C4, rates, scheduler(target)).itl_ms.p99 for target in (None, 0.1))
    assert whole is not None
    assert bounded is not None
    assert bounded < 125 < 200 < whole


def test_the_report_has_a_line_for_each_target(capsys: pytest.CaptureFixture[str]) -> None:
    report("bench-135m", "long", [50.0, 100.0])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["bench-135m", "long", "50"],
        ["bench-135m", "long", "100"],
    ]
