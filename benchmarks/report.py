"""Figures for people: the table and the ratios.

Rules: a figure of several rounds is their median; a ratio is always between servers of one run.
Above 1 the first server is better, whichever way the figure points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.measures import Summary

Row = tuple[str, str, Sequence[Summary]]
"""Server, workload, one summary per round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A column. digits: after the point."""

    title: str
    read: Callable[[Summary], float | None]
    is_better_higher: bool = False
    digits: int = 0

    def value(self, rounds: Sequence[Summary]) -> float | None:
        values = [value for summary in rounds if (value := self.read(summary)) is not None]
        return median(values) if values else None

    def show(self, rounds: Sequence[Summary]) -> str:
        value = self.value(rounds)
        return "-" if value is None else f"{value:.{self.digits}f}"


TOKENS = Figure(title="tok/s", read=lambda s: s.tokens_per_s, is_better_higher=True, digits=1)
TTFT = Figure(title="TTFT p50", read=lambda s: s.ttft_ms.p50)
ITL = Figure(title="ITL p50", read=lambda s: s.itl_ms.p50, digits=1)
TPOT = Figure(title="TPOT p50", read=lambda s: s.tpot_ms.p50, digits=1)
LATENCY = Figure(title="latency p50", read=lambda s: s.latency_ms.p50)
GOODPUT = Figure(title="goodput/s", read=lambda s: s.goodput_per_s, is_better_higher=True, digits=2)
FIGURES = (
    TOKENS,
    TTFT,
    Figure(title="TTFT p99", read=lambda s: s.ttft_ms.p99),
    ITL,
    Figure(title="ITL p99", read=lambda s: s.itl_ms.p99, digits=1),
    TPOT,
    LATENCY,
    Figure(title="p99", read=lambda s: s.latency_ms.p99),
    GOODPUT,
    Figure(title="client CPU", read=lambda s: s.client_cpu, digits=2),
)
COMPARED = (TOKENS, TTFT, ITL, TPOT, GOODPUT)


def ratio(figure: Figure, first: Sequence[Summary], other: Sequence[Summary]) -> float | None:
    """How many times better `first` is than `other`; None where one of them has no figure."""
    a, b = figure.value(first), figure.value(other)
    if not figure.is_better_higher:
        a, b = b, a
    return a / b if a is not None and b else None


def print_table(rows: Sequence[Row]) -> None:
    """Times in milliseconds; the last column is requests completed, cancelled, failed."""
    table = [["workload", "server", *(figure.title for figure in FIGURES), "ok/cut/failed"]]
    for server, workload, rounds in rows:
        counts = "/".join(
            str(sum(getattr(summary, name) for summary in rounds))
            for name in ("completed", "cancelled", "failed")
        )
        table.append([workload, server, *(figure.show(rounds) for figure in FIGURES), counts])
    _print_aligned(table)
    for server, workload, rounds in rows:
        for note in _notes(rounds):
            print(f"{workload}, {server}: {note}")


def _notes(rounds: Sequence[Summary]) -> list[str]:
    notes = []
    if short := sum(summary.short for summary in rounds):
        notes.append(f"{short} answers were shorter than asked for")
    for summary in rounds:
        notes += [f"{number} x {error}" for error, number in summary.errors.items()]
    return list(dict.fromkeys(notes))


def ratios(rows: Sequence[Row], *, first: str) -> list[dict[str, Any]]:
    """The ratios of the first server to each other one, by workload."""
    by_key = {(server, workload): rounds for server, workload, rounds in rows}
    return [
        {
            "workload": workload,
            "server": first,
            "against": server,
            **{figure.title: ratio(figure, by_key[first, workload], rounds) for figure in COMPARED},
        }
        for (server, workload), rounds in by_key.items()
        if server != first and (first, workload) in by_key
    ]


def print_ratios(entries: Sequence[dict[str, Any]]) -> None:
    titles = [figure.title for figure in COMPARED]
    table = [["workload", "against", *titles]]
    for entry in entries:
        values = (entry[title] for title in titles)
        shown = ["-" if value is None else f"{value:.2f}x" for value in values]
        table.append([entry["workload"], entry["against"], *shown])
    _print_aligned(table)


def _print_aligned(table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join(cells).rstrip())
