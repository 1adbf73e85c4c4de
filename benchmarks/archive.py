"""What a run measured, as a JSON file, and how such files are shown again.

Rules: everything that a figure depends on is in the file; ratios are between servers of one file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.measures import Slo, Summary
from benchmarks.plot import plot
from benchmarks.report import Row, print_ratios, print_table, ratios
from benchmarks.workloads import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One server of a run. rounds: by workload; problem: why it was not measured to the end."""

    name: str
    version: str
    command: str
    problem: str
    start_seconds: list[float] = field(default_factory=list)
    rounds: dict[str, list[Summary]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A run. sizes: full, quick or altered; the first server is the one that others are held to."""

    started: str
    machine: dict[str, Any]
    model: str
    sizes: str
    threads: int
    slo: Slo
    workloads: list[Workload]
    servers: list[Measured]
    ratios: list[dict[str, Any]] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """By workload, then by server."""
        return [
            (server.name, workload.name, server.rounds[workload.name])
            for workload in self.workloads
            for server in self.servers
            if workload.name in server.rounds
        ]


def save(results: Results, file: Path) -> None:
    """Write the file with its ratios, whole or not at all."""
    compared = ratios(results.rows(), first=results.servers[0].name)
    content = msgspec.json.encode(replace(results, ratios=compared))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
    partial.replace(file)


def load(file: Path) -> Results:
    """Raises ValueError, with the file's name, if it is not such a file."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Results)
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} is not a file of results: {error}") from error


def show(results: Results) -> None:
    """Print the table, the ratios and what could not be measured."""
    rows = results.rows()
    print(f"{results.model}, {results.threads} threads, {results.sizes} sizes, {results.started}")
    if rows:
        print_table(rows)
    first = results.servers[0].name
    if compared := ratios(rows, first=first):
        print(f"\n{first} against the others (above 1: it is better)")
        print_ratios(compared)
    for server in results.servers:
        if server.problem:
            print(f"{server.name}: not measured to the end: {server.problem}")


def plotted(runs: Sequence[Results]) -> list[Row]:
    """The rows of several runs, the servers named apart: by model, and by time if need be."""
    rows: dict[tuple[str, str], Row] = {}
    several_models = len({run.model for run in runs}) > 1
    for run in runs:
        for server, workload, rounds in run.rows():
            name = f"{server}, {run.model}" if several_models else server
            if (name, workload) in rows:
                name = f"{name}, {run.started}"
            rows[name, workload] = (name, workload, rounds)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive", description="Show files of results again."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them all: SVG or PNG")
    arguments = parser.parse_args()
    runs = [load(file) for file in arguments.files]
    for run in runs:
        show(run)
        print()
    if arguments.plot and (reason := plot(plotted(runs), arguments.plot)):
        print(reason)


if __name__ == "__main__":
    main()
