"""The runner: starts each server, warms it, plays the workloads, and compares.

Rules: one server at a time, in turns (A B A B), so that what else the machine does hits all alike;
all get the same prompts within a round and none gets a prompt twice; ratios are between servers of
one run. Whatever could not be measured is reported with its reason. The file of results is written
after every turn, so a run that is ended early leaves what it has measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.archive import Results, plotted, save, show
from benchmarks.client import add_slo, load_tokenizer
from benchmarks.measures import Slo
from benchmarks.models import SHAPES, cache_folder, find_model
from benchmarks.peers import MILLSTREAM, PEERS, ServerProblem, prepare, version
from benchmarks.plot import plot
from benchmarks.progress import say
from benchmarks.rounds import Contestant, Plan, play_round
from benchmarks.servers import Setting
from benchmarks.workloads import WORKLOADS, Workload, alter

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
            say(f"{contestant.server.name}: {problem}")
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


def sized(workload: Workload, arguments: argparse.Namespace) -> Workload:
    """The workload as this run plays it."""
    number = arguments.conversations or (workload.quick if arguments.quick else None)
    return alter(
        workload,
        conversations=number,
        prompt=arguments.prompt_tokens,
        answer=arguments.answer_tokens,
    )


def play_all(
    found: Sequence[Contestant], job: Plan, results: Results, *, rounds: int, file: Path
) -> Results:
    """All turns of all servers, A B A B. Returns what was measured; `file` has it, too."""
    start, turns = time.monotonic(), rounds * len(found)
    save(results, file)
    for turn in range(turns):
        number, contestant = turn // len(found) + 1, found[turn % len(found)]
        if not contestant.problem:
            say(f"round {number} of {rounds}, {contestant.server.name}")
            play_round(contestant, job, number)
            results = replace(results, servers=[each.measured() for each in found])
            save(results, file)
        # Servers differ in speed, so before each had a turn there is nothing to judge by.
        if len(found) - 1 <= turn < turns - 1:
            left = (time.monotonic() - start) / (turn + 1) * (turns - turn - 1)
            say(f"about {left / 60:.0f} min left")
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure millstream, by itself or with other servers in turns.",
    )
    add = parser.add_argument
    add("--model", default="bench-135m", help=f"folder, or one of {', '.join(SHAPES)} [bench-135m]")
    add(
        "--workloads",
        nargs="+",
        choices=[*WORKLOADS, "all"],
        default=["c1", "c4", "c16"],
        help="[c1 c4 c16]",
    )
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
    add("--quick", action="store_true", help="fewer requests: three times the concurrency or so")
    add("--threads", type=int, help="threads of every server [all cores]")
    add("--conversations", type=int, metavar="N", help="alters the workloads: this many of each")
    add("--prompt-tokens", type=int, metavar="N", help="alters the workloads: length of prompts")
    add("--answer-tokens", type=int, metavar="N", help="alters the workloads: length of answers")
    add("--start-seconds", type=float, default=900.0, help="how long a server may start [900]")
    add("--request-seconds", type=float, default=600.0, help="how long a request may take [600]")
    add("--json", type=Path, metavar="FILE", help="where figures go [benchmarks/results/TIME.json]")
    add("--plot", type=Path, metavar="FILE", help="draw an SVG or PNG (needs matplotlib)")
    add("--cache", type=Path, help="models and peers [$MILLSTREAM_BENCH_CACHE or ~/.cache]")
    add_slo(parser)
    return parser


def _end_servers(_signal: int, _frame: object) -> None:
    # SIGTERM would end this process at once and leave the server running.
    sys.exit("ended by SIGTERM")


def _job(arguments: argparse.Namespace, cache: Path, logs: Path) -> Plan:
    names = list(WORKLOADS) if "all" in arguments.workloads else arguments.workloads
    model = find_model(arguments.model, cache=cache)
    return Plan(
        setting=Setting(
            model=model,
            threads=arguments.threads or len(os.sched_getaffinity(0)),
            cache=cache,
            logs=logs,
            start_seconds=arguments.start_seconds,
        ),
        tokenizer=load_tokenizer(model),
        workloads=tuple(sized(WORKLOADS[name], arguments) for name in names),
        slo=Slo(arguments.slo_ttft_ms, arguments.slo_tpot_ms),
        request_seconds=arguments.request_seconds,
    )


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end_servers)
    cache = arguments.cache or cache_folder()
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    here, found = machine(), contestants(arguments, cache)
    if here["load"] > _BUSY_LOAD:
        say(f"warning: other work keeps {here['load']} cores busy; the figures will be off")
    job = _job(arguments, cache, cache / "logs" / started)
    is_altered = arguments.conversations or arguments.prompt_tokens or arguments.answer_tokens
    results = Results(
        started=started,
        machine=here,
        model=arguments.model,
        sizes="altered" if is_altered else "quick" if arguments.quick else "full",
        threads=job.setting.threads,
        slo=job.slo,
        workloads=list(job.workloads),
        servers=[contestant.measured() for contestant in found],
    )
    file = arguments.json or RESULTS / f"{started}.json"
    results = play_all(found, job, results, rounds=arguments.rounds, file=file)
    show(results)
    print(f"\nfigures: {file}")
    if arguments.plot and (reason := plot(plotted([results]), arguments.plot)):
        print(reason)
    summaries = [s for contestant in found for rounds in contestant.rounds.values() for s in rounds]
    return int(bool(found[0].problem) or any(summary.failed for summary in summaries))


if __name__ == "__main__":
    sys.exit(main())
