"""Throughput against latency, drawn with matplotlib where it is installed.

Rules: a point is a workload, a line a server; only points of one load are joined (c1, c4, ...),
since others differ in more than how many ask at a time. Up and to the left is better.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import LATENCY, TOKENS, TPOT, Figure, Row

_STEPS = re.compile(r"c\d+")


def plot(rows: Sequence[Row], file: Path) -> str | None:
    """Draw tokens/s against median TPOT and median latency. Returns why not, if not."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        drawing = importlib.import_module("matplotlib.figure")
    except ImportError:
        return f"no plot: install matplotlib (pip install matplotlib) to have {file}"
    figure = drawing.Figure(figsize=(11, 4.8), layout="constrained")
    for axes, latency in zip(figure.subplots(1, 2), (TPOT, LATENCY), strict=True):
        for number, server in enumerate(dict.fromkeys(server for server, _, _ in rows)):
            points = _points(rows, server, latency)
            joined = [point for point in points if _STEPS.fullmatch(point[2])]
            colour = f"C{number % 10}"
            axes.plot([x for x, _, _ in joined], [y for _, y, _ in joined], "-", color=colour)
            axes.plot(
                [x for x, _, _ in points],
                [y for _, y, _ in points],
                "o",
                color=colour,
                label=server,
            )
            for x, y, workload in points:
                axes.annotate(
                    workload, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7
                )
        axes.set(xlabel=f"{latency.title} (ms)", ylabel="tokens per second")
        if axes.texts:
            # matplotlib has no ticks for a logarithmic axis without points.
            axes.set(xscale="log", yscale="log")
        axes.grid(which="both", alpha=0.25)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Text as text: smaller than outlines, and it can be searched.
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file)
    return None


def _points(rows: Sequence[Row], server: str, latency: Figure) -> list[tuple[float, float, str]]:
    return [
        (x, y, workload)
        for name, workload, rounds in rows
        if name == server
        # Without 0 either: the axes are logarithmic.
        and (x := latency.value(rounds))
        and (y := TOKENS.value(rounds))
    ]
