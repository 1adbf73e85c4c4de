"""What it costs the HTTP process to keep answers: CPU and bytes on disk for each token.

Run: python -m benchmarks.micro.kept_answers [--streams 64] [--rounds 5] [--seconds 3]

The server, the engine and the client are those of `wire.py`; one server keeps its store in a file,
the other has none. Every round plays every way once, so that what else the machine does falls on
all of them. Ratios are of one round, and the figure is their median. All ways are played at one
pace: what is shown only when it is committed comes in larger pieces the longer a commit takes, and
as fast as it goes, pieces of another size would be compared. "CPU us" is the HTTP process's own
time, all threads, for each token; its inverse, "per core", is what a core could do.

"grown" are the bytes for each token by which the files of the store, write-ahead log included, are
larger when the answers have ended; "written" are those that the process gave to the disk, of files
that are written over as well.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import millstream
from benchmarks.micro.wire import run_server
from benchmarks.micro.wire_client import Load, Variant
from benchmarks.micro.wire_engine import Begin

_RESPONSE = Variant(
    {},
    path="/v1/responses",
    end=b"event: response.incomplete",
    repeat=b"event: response.output_text.done",
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask. is_kept: whether it is played on the server that has a store. against: the
    way that does the same on the other."""

    variant: Variant
    _: KW_ONLY
    is_kept: bool = False
    against: str


WAYS: Mapping[str, Way] = {
    "chat": Way(Variant({}), against="chat"),
    "chat, store on": Way(Variant({}), is_kept=True, against="chat"),
    "chat, resumable": Way(
        Variant({}, headers={"X-Resumable": "true"}), is_kept=True, against="chat"
    ),
    "response": Way(_RESPONSE, against="response"),
    "response, stored": Way(_RESPONSE, is_kept=True, against="response"),
    "response, background": Way(
        replace(_RESPONSE, fields={"background": True}), is_kept=True, against="response"
    ),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """grown, written: bytes of the store for each token."""

    cpu_us: float
    grown: float
    written: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """interval: seconds from step to step."""

    streams: int
    rounds: int
    seconds: float
    interval: float


def play(load: Load, way: Way, files: Path, *, plan: Plan) -> Cost:
    size, written = size_of(files), load.processes[0].io_counters().write_bytes
    found = load.play(Begin(plan.streams, plan.interval, 1), way.variant, seconds=plan.seconds)
    # What a server without a store sees is the other's, which tidies up.
    grown = size_of(files) - size if way.is_kept else 0
    written = load.processes[0].io_counters().write_bytes - written
    tokens = load.num_tokens
    return Cost(found.server_cpu / found.tokens * 1e6, grown / tokens, written / tokens)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def measure(names: Sequence[str], plan: Plan) -> dict[str, list[Cost]]:
    """The costs of each way, one of each round."""
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    source = Path(millstream.__file__).parents[1]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millstream-kept-"))
        files = Path(folder)
        kept = stack.enter_context(run_server(source, f"store={files / 'store.db'}"))
        bare = stack.enter_context(run_server(source, "store=off"))
        for _ in range(plan.rounds):
            for name in names:
                load = kept if WAYS[name].is_kept else bare
                costs[name].append(play(load, WAYS[name], files, plan=plan))
    return costs


def report(costs: Mapping[str, Sequence[Cost]]) -> list[str]:
    """A line for each way: medians, and the median ratio to what it is held against."""
    lines = [f"{'way':22} {'CPU us':>7} {'per core':>9} {'ratio':>6} {'grown':>7} {'written':>7}"]
    for name, own in costs.items():
        pairs = zip(own, costs.get(WAYS[name].against, own), strict=True)
        cpu = statistics.median(one.cpu_us for one in own)
        ratio = statistics.median(one.cpu_us / other.cpu_us for one, other in pairs)
        grown = statistics.median(one.grown for one in own)
        written = statistics.median(one.written for one in own)
        lines.append(
            f"{name:22} {cpu:7.1f} {1e6 / cpu:9.0f} {ratio:6.3f} {grown:7.1f} {written:7.1f}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.kept_answers")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--interval", type=float, default=0.03, help="seconds from step to step")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args(arguments)
    plan = Plan(
        streams=options.streams,
        rounds=options.rounds,
        seconds=options.seconds,
        interval=options.interval,
    )
    costs = measure(options.ways, plan)
    print("\n".join(report(costs)))


if __name__ == "__main__":
    main()
