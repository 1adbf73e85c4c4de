"""One turn of one server: start it, warm it, play the workloads, end it.

Rules: what goes wrong with a server ends up in its Contestant and stops nobody else. Warm-up
prompts are never measured ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from benchmarks.archive import Measured
from benchmarks.client import Target, play
from benchmarks.measures import Slo, Summary
from benchmarks.peers import Server, ServerProblem
from benchmarks.progress import say
from benchmarks.servers import Running, Setting, running
from benchmarks.wire import Endpoint
from benchmarks.workloads import Workload, alter, plan
from benchmarks.writer import Tokenizer

_WARM_UP_TOKENS = 8


@dataclass(kw_only=True, slots=True)
class Contestant:
    """A server in this run and what became of it. Mutated by the runner only."""

    server: Server
    version: str = ""
    python: Path = Path(sys.executable)
    problem: str = ""
    command: str = ""
    start_seconds: list[float] = field(default_factory=list)
    rounds: dict[str, list[Summary]] = field(default_factory=dict)

    def measured(self) -> Measured:
        return Measured(
            name=self.server.name,
            version=self.version,
            command=self.command,
            problem=self.problem,
            start_seconds=self.start_seconds,
            rounds=self.rounds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is played. request_seconds: how long a request may take before it counts as failed."""

    setting: Setting
    tokenizer: Tokenizer
    workloads: tuple[Workload, ...]
    slo: Slo
    request_seconds: float = 600.0


def play_round(contestant: Contestant, job: Plan, number: int) -> None:
    """Start the server, warm it, play every workload once, end it. Problems end up in it."""
    try:
        with running(contestant.server, contestant.python, job.setting, number=number) as started:
            contestant.command = started.shown
            contestant.start_seconds.append(round(started.start_seconds, 2))
            say(f"  started in {started.start_seconds:.0f} s")
            target = target_of(contestant.server, started, job)
            for workload in job.workloads:
                warm_up(target, workload, job)
            for workload in job.workloads:
                conversations = plan(workload, job.tokenizer, seed=f"{workload.name}-{number}")
                summary = uvloop.run(play(target, workload, conversations, job.slo))
                contestant.rounds.setdefault(workload.name, []).append(summary)
                say(
                    f"  {workload.name}: {summary.tokens_per_s:.1f} tok/s"
                    f" in {summary.duration_s:.0f} s"
                )
    except ServerProblem as problem:
        contestant.problem = str(problem)
        say(f"  {problem}")


def target_of(server: Server, started: Running, job: Plan) -> Target:
    # Peers know a local model by its folder; millstream accepts any name.
    return Target(
        endpoint=Endpoint.parse(started.base_url),
        model=str(job.setting.model),
        extra=dict(server.extra),
        timeout=job.request_seconds,
    )


def warm_up(target: Target, workload: Workload, job: Plan) -> None:
    """A few short answers at the workload's own width. Raises ServerProblem if one fails."""
    width = workload.concurrency or 4
    short = alter(workload, conversations=width, prompt=None, answer=_WARM_UP_TOKENS)
    short = replace(short, concurrency=width, rate=None, turns=1, cancelled=0.0)
    conversations = plan(short, job.tokenizer, seed=f"{workload.name}-warm-up")
    summary = uvloop.run(play(target, short, conversations, job.slo))
    if summary.failed:
        raise ServerProblem(f"{workload.name}, warm-up: {next(iter(summary.errors))}")
