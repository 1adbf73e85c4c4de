"""The runner: starts each server, warms it, plays the workloads, and compares.

Rules: one server at a time, in turns (A B A B), so that what else the machine does hits all alike;
all get the same prompts within a round and none gets a prompt twice; ratios are between servers of
one run. Whatever could not be measured is reported with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.client import add_slo, load_tokenizer
from benchmarks.measures import Slo
from benchmarks.models import SHAPES, cache_folder, find_model
from benchmarks.report import Row, plot, print_ratios, print_table, ratios
from benchmarks.rounds import Contestant, Plan, play_round, say
from benchmarks.servers import MILLSTREAM, PEERS, ServerProblem, prepare, version
from benchmarks.workloads import WORKLOADS, alter

RESULTS = Path(__file__).parent / "results"
_BUSY_LOAD = 0.5


def contestants(arguments: argparse.Namespace, cache: Path) -> list[Contestant]:
    """The servers of this run, installed; those that cannot be carry their problem."""
    servers = [replace(MILLSTREAM, flags=tuple(shlex.split(arguments.flags)))]
    for variant in arguments.variant:
        name, _, flags = variant.partition("=")
        servers.append(
            replace(MILLSTREAM, name=f"millstream {name}", flags=tuple(shlex.split(flags)))
        )
    servers += [PEERS[name] for name in arguments.peers]
    found = [Contestant(server=server) for server in servers]
    for contestant in found:
        try:
            contestant.python = prepare(contestant.server, cache)
            contestant.version = version(contestant.server, contestant.python)
        except ServerProblem as problem:
            contestant.problem = str(problem)
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on. load: work already running, in cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--model", default="bench-135m", help=f"folder, or one of {', '.join(SHAPES)} [bench-135m]")
    add("--workloads", nargs="+", choices=WORKLOADS, default=["c1", "c4", "c16"])
    add("--peers", nargs="+", choices=PEERS, default=[], help="other servers to compare with")
    add("--flags", default="", help='flags of millstream, such as --flags="--block-size 32"')
    add(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=FLAGS",
        help="millstream once more, with these flags; may be repeated",
    )
    add("--rounds", type=int, default=2, help="turns of each server [2]")
    add("--threads", type=int, help="threads for every server (default: each one's own)")
    add("--conversations", type=int, metavar="N", help="alters the workloads: this many of each")
    add("--prompt-tokens", type=int, metavar="N", help="alters the workloads: length of prompts")
    add("--answer-tokens", type=int, metavar="N", help="alters the workloads: length of answers")
    add("--json", type=Path, metavar="FILE", help="where figures go [benchmarks/results/TIME.json]")
    add("--plot", type=Path, metavar="FILE", help="draw an SVG or PNG (needs matplotlib)")
    add("--cache", type=Path, help="models and peers [$MILLSTREAM_BENCH_CACHE or ~/.cache]")
    add_slo(parser)
    return parser


def report(
    found: Sequence[Contestant], arguments: argparse.Namespace, head: dict[str, Any]
) -> None:
    """Print the tables and write the JSON (and the plot)."""
    rows: list[Row] = [
        (contestant.server.name, name, contestant.rounds[name])
        for name in arguments.workloads
        for contestant in found
        if name in contestant.rounds
    ]
    if rows:
        print_table(rows)
    compared = ratios(rows, first=found[0].server.name)
    if compared:
        print(f"\n{found[0].server.name} against the others (above 1: it is better)")
        print_ratios(compared)
    for contestant in found:
        if contestant.problem:
            print(f"{contestant.server.name}: not measured to the end: {contestant.problem}")
    servers = [
        {
            "name": contestant.server.name,
            "version": contestant.version,
            "command": contestant.command,
            "problem": contestant.problem or None,
            "start_seconds": contestant.start_seconds,
            "rounds": {
                name: [asdict(summary) for summary in rounds]
                for name, rounds in contestant.rounds.items()
            },
        }
        for contestant in found
    ]
    content = {**head, "servers": servers, "ratios": compared}
    file = arguments.json or RESULTS / f"{head['started']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\nfigures: {file}")
    if arguments.plot and (reason := plot(rows, arguments.plot)):
        print(reason)


def _end_servers(_signal: int, _frame: object) -> None:
    # SIGTERM would end this process at once and leave the server running.
    sys.exit("ended by SIGTERM")


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end_servers)
    cache = arguments.cache or cache_folder()
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%SZ")
    altered = {
        "conversations": arguments.conversations,
        "prompt": arguments.prompt_tokens,
        "answer": arguments.answer_tokens,
    }
    here, found = machine(), contestants(arguments, cache)
    model = find_model(arguments.model, cache=cache)
    if here["load"] > _BUSY_LOAD:
        say(f"warning: other work keeps {here['load']} cores busy; the figures will be off")
    job = Plan(
        model=model,
        tokenizer=load_tokenizer(model),
        workloads=tuple(alter(WORKLOADS[name], **altered) for name in arguments.workloads),
        slo=Slo(arguments.slo_ttft_ms, arguments.slo_tpot_ms),
        threads=arguments.threads,
        logs=cache / "logs" / started,
    )
    for number in range(1, arguments.rounds + 1):
        for contestant in found:
            if not contestant.problem:
                say(f"round {number}, {contestant.server.name}")
                play_round(contestant, job, number)
    head = {
        "started": started,
        "machine": here,
        "model": arguments.model,
        "is_altered": any(value is not None for value in altered.values()),
        "workloads": [asdict(workload) for workload in job.workloads],
        "slo": asdict(job.slo),
        "threads": arguments.threads,
    }
    report(found, arguments, head)
    summaries = [s for contestant in found for rounds in contestant.rounds.values() for s in rounds]
    return int(bool(found[0].problem) or any(summary.failed for summary in summaries))


if __name__ == "__main__":
    sys.exit(main())
