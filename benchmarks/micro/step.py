"""One decode step of a model, beside the time its linear layers take alone.

Run: python -m benchmarks.micro.step [--model bench-135m] [--threads N] [--json FILE]

The step is what the engine calls: plan in, tokens out. "linears" repeats the matrix products of
that very step, on the same tensors, and nothing else: what is above it is what can be won. Variants
turn optimisations off one after the other: `modules` runs the decoder layers as transformers wrote
them (norms and MLPs by kernels), `attention` leaves the kernel for attention only, `off` is
`--native-kernels off`. All are timed in turns, so that other work on the machine hits every side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.models import find_model
from benchmarks.steps import run_step
from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.build import runner_factory
from millstream.model.decoder.stack import DecoderStack
from millstream.model.forward import Forward
from millstream.model.runner import ModelRunner
from millstream.model.speedups import Speedups
from millstream.settings import Settings

BATCHES = (1, 4, 16, 32)
CONTEXTS = (192, 1024)
BLOCK_SIZE = 16
VARIANTS = {
    "fused": Speedups(kernels="on"),
    "modules": Speedups(kernels="on", stack=False),
    "attention": Speedups(kernels="on", decoder=False),
    "off": Speedups(kernels="off"),
}
PRODUCTS = (
    *("millstream::packed_linear", "millstream::int8_linear", "mkldnn::_linear_pointwise"),
    *("aten::linear", "aten::addmm", "aten::mm", "aten::matmul"),
)

Clock = Callable[[], float]


def make_runner(folder: Path, variant: str, *, threads: int, cache_bytes: int) -> ModelRunner:
    """A runner with the optimisations of `variant` only."""
    settings = Settings(
        model_id=str(folder),
        threads=threads,
        kv_cache_memory=cache_bytes,
        block_size=BLOCK_SIZE,
        max_concurrent_requests=max(BATCHES),
    )
    return runner_factory(folder, settings, VARIANTS[variant])()


def share_cache(runners: Iterable[ModelRunner]) -> None:
    """One memory for all: they run in turns, and what they read does not matter."""
    first, *others = (runner.cache for runner in runners)
    for tensor in (*first.keys.values(), *first.values.values()):
        tensor.normal_(std=0.1)
    for cache in others:
        cache.keys.update(first.keys)
        cache.values.update(first.values)


def decode_plan(*, batch: int, context: int, num_blocks: int, vocab: int) -> Plan:
    """A step of `batch` greedy sequences of `context` tokens, their blocks in random places."""
    width = -(-context // BLOCK_SIZE)
    generator = torch.Generator().manual_seed(0)
    tables = torch.randperm(num_blocks, generator=generator)[: batch * width].view(batch, width)
    history = [number * 37 % vocab for number in range(context)]
    chunks = []
    for number, table in enumerate(tables.tolist()):
        request = Request(
            id=number + 1,
            prompt=tuple(history[: context // 2]),
            sampling=SamplingParams(temperature=0.0),
            max_tokens=context,
        )
        token = (history[-1] + number) % vocab
        chunks.append(Chunk(request, (token,), context - 1, table, history, is_last=True))
    return Plan(tuple(chunks))


class Products(TorchDispatchMode):
    """Notes the matrix products of what runs within, so that they can be repeated.

    calls: grows while the mode is on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func._schema.name in PRODUCTS:  # type: ignore[attr-defined]
            self.calls.append(lambda: func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))

    @torch.inference_mode()
    def repeat(self) -> None:
        for call in self.calls:
            call()


@contextmanager
def layer_by_layer(runner: ModelRunner) -> Iterator[None]:
    """Inside, no operator stands for several products."""
    forward = runner.execution.forward
    assert isinstance(forward, Forward)
    stacks = [module for module in forward.model.modules() if isinstance(module, DecoderStack)]
    kept, shortcut = [stack.compiled for stack in stacks], forward.shortcut
    forward.shortcut = None
    for stack in stacks:
        stack.compiled = None
    try:
        yield
    finally:
        for stack, compiled in zip(stacks, kept, strict=True):
            stack.compiled = compiled
        forward.shortcut = shortcut


def in_turns(
    functions: Mapping[str, Callable[[], object]], *, seconds: float, clock: Clock
) -> dict[str, float]:
    """Median milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    deadline = time.perf_counter() + seconds
    for function in functions.values():
        function()
    while time.perf_counter() < deadline or len(taken["linears"]) < 3:
        for name, function in functions.items():
            begin = clock()
            function()
            taken[name].append(clock() - begin)
    return {name: statistics.median(times) * 1e3 for name, times in taken.items()}


def measure(
    runners: Mapping[str, ModelRunner], plan: Plan, *, seconds: float, clock: Clock
) -> dict[str, float]:
    """Median milliseconds of a step of each variant, of the first one's forward pass without
    sampling, and of its linears."""
    first = next(iter(runners.values()))
    products = Products()
    with products, layer_by_layer(first):
        run_step(first, plan)
    functions: dict[str, Callable[[], object]] = {
        name: lambda runner=runner: run_step(runner, plan) for name, runner in runners.items()
    }
    functions["logits"] = lambda: first.logits(plan)
    functions["linears"] = products.repeat
    return in_turns(functions, seconds=seconds, clock=clock)


def breakdown(runner: ModelRunner, plan: Plan, *, steps: int = 10, rows: int = 14) -> list[str]:
    """Where the time of a step goes: milliseconds and calls by operator."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            run_step(runner, plan)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    return [
        f"  {event.key:42} {event.self_cpu_time_total / steps / 1e3:8.3f} ms"
        f" {event.count / steps:7.0f} calls"
        for event in events[:rows]
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bench-135m")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["fused", "off"])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row of the table")
    parser.add_argument("--cpu-time", action="store_true", help="of this process; not wall time")
    parser.add_argument("--profile", action="store_true", help="operators of a step, for each row")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    folder = find_model(arguments.model)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    num_tokens = max(arguments.batches) * (max(arguments.contexts) + BLOCK_SIZE)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    token_bytes = config["num_hidden_layers"] * config["num_key_value_heads"] * dim * 4
    runners = {
        name: make_runner(
            folder, name, threads=arguments.threads, cache_bytes=num_tokens * token_bytes
        )
        for name in arguments.variants
    }
    share_cache(runners.values())
    info = next(iter(runners.values())).info
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    names = [*runners, "logits", "linears"]
    print(f"{arguments.model}, {arguments.threads} threads, medians in ms")
    print("context batch " + " ".join(f"{name:>9}" for name in names) + "   step/linears")
    table = []
    for context in arguments.contexts:
        for batch in arguments.batches:
            plan = decode_plan(
                batch=batch, context=context, num_blocks=info.num_blocks, vocab=info.vocab_size
            )
            found = measure(runners, plan, seconds=arguments.seconds, clock=clock)
            ratio = found[names[0]] / found["linears"]
            cells = " ".join(f"{found[name]:9.2f}" for name in names)
            print(f"{context:7} {batch:5} {cells}   {ratio:.2f}", flush=True)
            table.append({"context": context, "batch": batch, "ratio": ratio, "ms": found})
            if arguments.profile:
                print("\n".join(breakdown(next(iter(runners.values())), plan)))
    if arguments.json:
        result = {"model": arguments.model, "threads": arguments.threads, "rows": table}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
