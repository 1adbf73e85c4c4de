"""What `--batch-invariant` costs: decode steps and a prefill, with and without, in turns.

python -m benchmarks.micro.invariant bench-135m --layers 10 --batches 1 4 16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import SHAPES, make_model
from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.build import build_runner
from millstream.model.loading.model import load_model
from millstream.model.runner import ModelRunner
from millstream.settings import Settings

_BLOCK_SIZE = 16


def decode_plan(count: int, context: int) -> Plan:
    """One token of each of `count` sequences that have `context` tokens already."""
    blocks = -(-(context + 1) // _BLOCK_SIZE)
    chunks = [
        _chunk(i, [7 + i], context, list(range(i * blocks, (i + 1) * blocks))) for i in range(count)
    ]
    return Plan(tuple(chunks))


def prefill_plan(length: int) -> Plan:
    """One prompt in one chunk."""
    tokens = [number * 37 % 1000 for number in range(length)]
    return Plan((_chunk(0, tokens, 0, list(range(-(-length // _BLOCK_SIZE)))),))


def _chunk(number: int, tokens: list[int], start: int, table: list[int]) -> Chunk:
    request = Request(id=number, prompt=(1,), sampling=SamplingParams(), max_tokens=1)
    return Chunk(request, tokens, start, table, tokens, is_last=True)


def compare(runners: Sequence[ModelRunner], plan: Plan, rounds: int) -> list[float]:
    """Median milliseconds of a forward call of each runner, taken in turns."""
    times: list[list[float]] = [[] for _ in runners]
    for number in range(rounds + 2):
        for index, runner in enumerate(runners):
            start = time.perf_counter()
            runner.logits(plan)
            if number >= 2:
                times[index].append((time.perf_counter() - start) * 1000)
    return [statistics.median(found) for found in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.micro.invariant", description=__doc__
    )
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--context", type=int, default=192)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    with tempfile.TemporaryDirectory() as name:
        folder = make_model(replace(shape, layers=options.layers or shape.layers), Path(name) / "m")
        values: dict[str, Any] = {
            "model_id": str(folder),
            "dtype": options.dtype,
            "threads": options.threads,
            "block_size": _BLOCK_SIZE,
            "kv_cache_memory": "512MiB",
        }
        settings = Settings(**values)
        loaded = [load_model(folder, settings) for _ in range(2)]
        start = time.perf_counter()
        runners = [build_runner(loaded[0], settings)]
        plain = time.perf_counter() - start
        runners.append(
            build_runner(loaded[1], settings.model_copy(update={"batch_invariant": True}))
        )
        print(
            f"start  default {plain:.1f} s, invariant {time.perf_counter() - start - plain:.1f} s"
        )
    for count in options.batches:
        _report(
            f"decode {count}", compare(runners, decode_plan(count, options.context), options.rounds)
        )
    rounds = max(options.rounds // 4, 3)
    _report(f"prefill {options.prefill}", compare(runners, prefill_plan(options.prefill), rounds))


def _report(what: str, milliseconds: list[float]) -> None:
    default, invariant = milliseconds
    print(
        f"{what:12} default {default:7.1f} ms, invariant {invariant:7.1f} ms, "
        f"x{invariant / default:.2f}"
    )


if __name__ == "__main__":
    main()
