"""Steps of a model whose layers keep states, beside those of a plain model of as many weights.

Run: python -m benchmarks.micro.states [--threads N] [--seconds S]

A decode step of 1 and of 8 sequences, and the steps that compute a prompt in chunks as the engine
cuts it. Both models are timed in turns, so that other work on the machine hits both. What counts is
the ratio, of milliseconds for each byte of weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch

from benchmarks.models import find_model
from benchmarks.steps import run_step
from millstream.core.blocks import BlockPool
from millstream.core.plan import Plan, StateMove
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.core.states import StatePool
from millstream.model.build import runner_factory
from millstream.model.runner import ModelRunner
from millstream.settings import Settings

MODELS = ("bench-hybrid", "bench-500m")
ROWS = (1, 8)
PROMPTS = (128, 1024)
CONTEXT = 200


def make_runner(name: str, *, threads: int) -> ModelRunner:
    settings = Settings(
        model_id=str(find_model(name)),
        threads=threads,
        kv_cache_memory=3 * 2**30,
        max_concurrent_requests=max(ROWS),
        native_kernels="on",
    )
    return runner_factory(find_model(name), settings)()


def scheduler_of(runner: ModelRunner) -> Scheduler:
    info = runner.info
    return Scheduler(
        pool=BlockPool(num_blocks=info.num_blocks, block_size=info.block_size),
        max_running=max(ROWS),
        max_step_tokens=info.max_step_tokens,
        states=StatePool.of(info),
    )


def request_of(number: int, length: int) -> Request:
    """A greedy request with a prompt of its own."""
    prompt = tuple((position * 37 + number * 101) % 30_000 + 100 for position in range(length))
    sampling = SamplingParams(temperature=0.0)
    return Request(id=number, prompt=prompt, sampling=sampling, max_tokens=10_000)


def decode_plan(runner: ModelRunner, rows: int) -> Plan:
    """A step of so many sequences that decode; it can be repeated."""
    scheduler = scheduler_of(runner)
    for number in range(rows):
        scheduler.add(request_of(number, CONTEXT))
    while (plan := scheduler.plan()) is not None:
        if len(plan.chunks) == rows and all(len(chunk.tokens) == 1 for chunk in plan.chunks):
            break
        scheduler.commit(plan, run_step(runner, plan))
    assert plan is not None
    return Plan(tuple(chunk._replace(states=_in_place(chunk.states)) for chunk in plan.chunks))


def _in_place(moves: tuple[StateMove, ...]) -> tuple[StateMove, ...]:
    """Repeating a step that makes a snapshot would read one that is not there."""
    return tuple(move._replace(target=move.source or 0) for move in moves)


def compute_prompt(runner: ModelRunner, length: int) -> None:
    """All steps of a prompt that is not cached."""
    scheduler = scheduler_of(runner)
    scheduler.add(request_of(int(time.perf_counter() * 1e6) % 1_000_000, length))
    while (plan := scheduler.plan()) is not None:
        output = run_step(runner, plan)
        if any(chunk.is_last for chunk in plan.chunks):
            return
        scheduler.commit(plan, output)


def in_turns(functions: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(taken[MODELS[0]]) < 3:
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) * 1e3 for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=8.0, help="for each row of the table")
    arguments = parser.parse_args()
    runners = {name: make_runner(name, threads=arguments.threads) for name in MODELS}
    sizes = {name: runner.info.num_parameters for name, runner in runners.items()}
    weight = sizes[MODELS[1]] / sizes[MODELS[0]]
    print(f"{'':>14} {MODELS[0]:>14} {MODELS[1]:>14}   ratio for each weight")
    for rows in ROWS:
        plans = {name: decode_plan(runner, rows) for name, runner in runners.items()}
        found = in_turns(
            {name: partial(run_step, runners[name], plans[name]) for name in MODELS},
            arguments.seconds,
        )
        _print(f"{rows} rows", found, weight)
    for length in PROMPTS:
        found = in_turns(
            {name: partial(compute_prompt, runners[name], length) for name in MODELS},
            arguments.seconds,
        )
        _print(f"prompt {length}", found, weight)


def _print(what: str, found: Mapping[str, float], weight: float) -> None:
    hybrid, plain = (found[name] for name in MODELS)
    print(f"{what:>14} {hybrid:11.1f} ms {plain:11.1f} ms   {hybrid / plain * weight:.2f}")


if __name__ == "__main__":
    main()
