"""Steps of a model in bfloat16, int8 and int4: decoding at a few rows, and prompts.

Run: python -m benchmarks.micro.quantized [--model bench-600m] [--threads N] [--seconds S]

The step is what the engine calls: plan in, tokens out. All three take turns in one process, so that
other work on the machine hits every side; medians in milliseconds, and how many times as fast int4
is as the other two. With --cpu-time it is the time of this process's threads instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.micro.step import BLOCK_SIZE, Clock, decode_plan, share_cache
from benchmarks.models import find_model
from benchmarks.steps import run_step
from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.build import runner_factory
from millstream.model.runner import ModelRunner
from millstream.settings import Settings

SCHEMES = ("none", "int8", "int4")
ROWS = (1, 4, 16)
PROMPTS = (32, 128, 256)  # tokens of a step
CONTEXT = 192


def make_runner(folder: Path, scheme: str, *, threads: int) -> ModelRunner:
    """A runner with kernels, its weights in bfloat16 or with fewer bits."""
    settings = Settings.model_validate(
        {
            "model_id": str(folder),
            "threads": threads,
            "dtype": "bfloat16",
            "quantize": scheme,
            "native_kernels": "on",
            "kv_cache_memory": cache_bytes(folder),
            "block_size": BLOCK_SIZE,
            "max_concurrent_requests": max(ROWS),
        }
    )
    return runner_factory(folder, settings)()


def cache_bytes(folder: Path) -> int:
    """Memory for the keys and values of the largest step."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    token: int = config["num_hidden_layers"] * config["num_key_value_heads"] * dim * 4
    return token * max(ROWS) * (CONTEXT + 2 * BLOCK_SIZE)


def prompt_plan(length: int, *, vocab: int) -> Plan:
    """A step that computes one prompt and draws its first token."""
    prompt = [number * 37 % vocab for number in range(length)]
    request = Request(
        id=1, prompt=tuple(prompt), sampling=SamplingParams(temperature=0.0), max_tokens=1
    )
    table = list(range(-(-length // BLOCK_SIZE)))
    return Plan((Chunk(request, tuple(prompt), 0, table, prompt, is_last=True),))


def in_turns(
    runners: Mapping[str, ModelRunner], plan: Plan, *, seconds: float, clock: Clock
) -> dict[str, float]:
    """Median milliseconds of a step of each."""
    taken: dict[str, list[float]] = {name: [] for name in runners}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(taken["none"]) < 4:
        for name, runner in runners.items():
            begin = clock()
            run_step(runner, plan)
            taken[name].append(clock() - begin)
    return {name: statistics.median(times[1:]) * 1e3 for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bench-600m")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of the table")
    parser.add_argument("--cpu-time", action="store_true", help="of this process; not wall time")
    arguments = parser.parse_args()
    folder = find_model(arguments.model)
    runners = {name: make_runner(folder, name, threads=arguments.threads) for name in SCHEMES}
    share_cache(runners.values())
    info = runners["none"].info
    plans = {
        f"decode, {rows} rows": decode_plan(
            batch=rows, context=CONTEXT, num_blocks=info.num_blocks, vocab=info.vocab_size
        )
        for rows in ROWS
    } | {f"prompt of {length}": prompt_plan(length, vocab=info.vocab_size) for length in PROMPTS}
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print(f"{arguments.model}, {arguments.threads} threads, medians in ms")
    print(f"{'step':16} {'bfloat16':>9} {'int8':>9} {'int4':>9}   of bfloat16, of int8")
    for name, plan in plans.items():
        found = in_turns(runners, plan, seconds=arguments.seconds, clock=clock)
        cells = " ".join(f"{found[scheme]:9.2f}" for scheme in SCHEMES)
        times = " ".join(f"{found[scheme] / found['int4']:6.2f}" for scheme in SCHEMES[:2])
        print(f"{name:16} {cells}   {times}", flush=True)


if __name__ == "__main__":
    main()
