"""What `--target-itl-ms` moves between prompts and answers: the scheduler on simulated steps.

Run: python -m benchmarks.micro.step_budget [--targets 50 100 300] [--workloads c16 c32 long]

The scheduler is the real one and learns from its steps; only how long they take is made up: what
MACHINES say, give or take some percent. So figures are the same on every machine, busy or not. They
are ratios to steps of 256 tokens, whatever those take, and say nothing of how fast a server is.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

from benchmarks.measures import Record, Slo, Summary, summarise
from benchmarks.workloads import WORKLOADS, Workload
from millstream.core.blocks import BlockPool
from millstream.core.plan import StepOutput
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.core.step_costs import Rates, work_of

# A quarter of what one busy thread of a Xeon with AMX took; and how large their steps may be.
MACHINES = {
    "bench-135m": (Rates(7.5e-3, 0.22e-3, 1.1e-6, 0.080e-3, 0.21e-6), 1024),
    "bench-600m": (Rates(28e-3, 0.90e-3, 1.5e-6, 0.33e-3, 0.75e-6), 682),
}
FIXED_TOKENS = 256
NOISE = 0.03
BETWEEN = 0.003  # seconds from the end of an answer to the next question
NAMES = ("c4", "c16", "c32", "long", "prefix")


def make_scheduler(*, max_step_tokens: int, target: float | None) -> Scheduler:
    """Like a server's on a CPU. target: in seconds; None: all steps are filled."""
    return Scheduler(
        pool=BlockPool(num_blocks=9000, block_size=16),
        max_running=32,
        max_step_tokens=max_step_tokens,
        target_seconds=target,
    )


class Clients:
    """Those who ask again when they have their answer. Mutated by `play()` only."""

    def __init__(self, workload: Workload) -> None:
        assert workload.concurrency is not None
        self._workload, self._source = workload, random.Random(workload.name)
        self._shared = self._words(workload.shared)
        self._num_asked = 0
        self.coming = sorted(self._source.random() * BETWEEN for _ in range(workload.concurrency))
        self.times: dict[int, list[float]] = {}
        self.records: list[Record] = []

    def ask(self, scheduler: Scheduler, now: float) -> None:
        """Sends what has come by now."""
        while self.coming and self.coming[0] <= now:
            self.times[self._num_asked] = [self.coming.pop(0)]
            own = self._words(self._workload.prompt[0] - self._workload.shared)
            request = Request(
                id=self._num_asked,
                prompt=self._shared + own,
                sampling=SamplingParams(),
                max_tokens=self._workload.answer[0],
            )
            self._num_asked += 1
            scheduler.add(request)

    def end(self, number: int) -> None:
        """Takes note of an answer that is whole; its client goes on."""
        started, *times = self.times.pop(number)
        self.records.append(
            Record(
                outcome="completed",
                started=started,
                ended=times[-1],
                times=tuple(times),
                tokens=len(times),
            )
        )
        if self._num_asked + len(self.coming) < self._workload.conversations:
            self.coming.append(times[-1] + BETWEEN)

    def _words(self, count: int) -> tuple[int, ...]:
        return tuple(self._source.randrange(30_000) for _ in range(count))


def play(workload: Workload, rates: Rates, scheduler: Scheduler) -> Summary:
    """The whole workload."""
    clients, source, now = Clients(workload), random.Random(1), 0.0
    while len(clients.records) < workload.conversations:
        clients.ask(scheduler, now)
        plan = scheduler.plan()
        if plan is None:
            now = clients.coming[0]
            continue
        seconds = rates.seconds(work_of(plan.chunks)) * source.gauss(1, NOISE)
        now += seconds
        output = StepOutput([5] * plan.num_sampled)
        for event in scheduler.commit(plan, output, seconds=seconds):
            clients.times[event.request_id].append(now)
            if event.finish_reason is not None:
                clients.end(event.request_id)
    return summarise(clients.records, duration=now, client_cpu_seconds=0.0, slo=Slo())


def figures(summary: Summary) -> list[float]:
    """Median time between tokens and to the first, longest gaps (p99), tokens per second."""
    found = (summary.tpot_ms.p50, summary.ttft_ms.p50, summary.itl_ms.p99, summary.tokens_per_s)
    return [value or 0.0 for value in found]


def report(machine: str, name: str, targets: Sequence[float]) -> None:
    """A line for each target, beside steps of a fixed size."""
    rates, largest = MACHINES[machine]
    fixed = make_scheduler(max_step_tokens=FIXED_TOKENS, target=None)
    before = figures(play(WORKLOADS[name], rates, fixed))
    for target in targets:
        timed = make_scheduler(max_step_tokens=largest, target=target / 1000)
        after = figures(play(WORKLOADS[name], rates, timed))
        ratios = "".join(f"{new / old:9.2f}" for new, old in zip(after, before, strict=True))
        print(f"{machine:12}{name:8}{target:8.0f} ms{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.step_budget")
    parser.add_argument("--targets", nargs="+", type=float, default=[50.0, 100.0, 300.0])
    parser.add_argument("--workloads", nargs="+", choices=NAMES, default=["c16", "c32", "long"])
    options = parser.parse_args()
    print(f"{'':31}{'TPOT p50':>9}{'TTFT p50':>9}{'ITL p99':>9}{'tok/s':>9}")
    for machine in MACHINES:
        for name in options.workloads:
            report(machine, name, options.targets)


if __name__ == "__main__":
    main()
