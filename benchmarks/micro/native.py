"""The compiled CPU kernels against the torch operations that they stand for.

Run: python -m benchmarks.micro.native [--threads N] [--seconds S]

Attention: microseconds of one decode call of one layer, and the cache bytes it reads per second,
against a gather of the blocks followed by scaled dot product attention. Enough layers to not fit
the processor's caches; blocks in random places. Then the small operations of one step. Everything
is timed in turns and reported as medians, so that other work on the machine hits both sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from millstream.model.attention import LayerOptions, attend_dense
from millstream.model.cpu.kernels import Kernels, plain
from millstream.model.cpu.kernels.loader import load
from millstream.model.paging.kv_cache import KVCache, LayerShape

BATCHES = (1, 4, 16, 32)
CONTEXTS = (128, 1024, 4096)
BLOCK_SIZE = 16
CACHE_BYTES = 400e6


@dataclass(frozen=True)
class Model:
    name: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    dim: int


MODELS = (
    Model("bench-135m", hidden=576, intermediate=1536, heads=9, kv_heads=3, dim=64),
    Model("bench-600m", hidden=1024, intermediate=3072, heads=16, kv_heads=8, dim=128),
)


def in_turns(
    functions: list[Callable[[int], object]], *, layers: int, seconds: float
) -> list[float]:
    """Median microseconds of a call of each, with layer numbers as arguments."""
    taken: list[list[float]] = [[] for _ in functions]
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or not taken[-1]:
        for function, times in zip(functions, taken, strict=True):
            for layer in range(layers):
                begin = time.perf_counter()
                function(layer)
                times.append(time.perf_counter() - begin)
    return [statistics.median(times) * 1e6 for times in taken]


def attention(
    kernels: Kernels, model: Model, *, batch: int, context: int, seconds: float
) -> tuple[float, float, float]:
    """Microseconds compiled and in torch, and GB/s of the compiled kernel."""
    width = -(-context // BLOCK_SIZE)
    shape = LayerShape(model.kv_heads, model.dim, model.dim)
    read = 2 * batch * context * shape.kv_heads * shape.key_dim * 2
    layers = max(1, min(30, int(CACHE_BYTES / read)))
    cache = KVCache(
        dict.fromkeys(range(layers), shape),
        num_blocks=batch * width,
        block_size=BLOCK_SIZE,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
    for tensor in (*cache.keys.values(), *cache.values.values()):
        tensor.fill_(0.5)
    tables = torch.randperm(batch * width).view(batch, width)
    positions = torch.full((batch,), context - 1)
    query = torch.randn(batch, model.heads, model.dim, dtype=torch.bfloat16)
    mask = (torch.arange(width * BLOCK_SIZE) <= positions.unsqueeze(1))[:, None, None, :]
    options = LayerOptions(scale=model.dim**-0.5)

    def compiled(layer: int) -> Tensor:
        keys, values = cache.keys[layer], cache.values[layer]
        return kernels.paged_attention_decode(
            query, keys, values, tables, positions, scale=options.scale
        )

    def gathered(layer: int) -> Tensor:
        keys, values = cache.read(layer, tables)
        grouped = query.view(batch, model.kv_heads, -1, model.dim)
        return attend_dense(grouped, keys, values, mask, options)

    ours, theirs = in_turns([compiled, gathered], layers=layers, seconds=seconds)
    return ours, theirs, read / ours / 1e3


def small_operations(
    kernels: Kernels, model: Model, *, batch: int, seconds: float
) -> dict[str, list[float]]:
    """Microseconds compiled and in torch, by name."""
    sides = (kernels, plain())
    return {
        name: in_turns(
            [lambda _, side=side, call=call: call(side) for side in sides],
            layers=100,
            seconds=seconds,
        )
        for name, call in operations_of_a_step(model, batch).items()
    }


def operations_of_a_step(model: Model, batch: int) -> dict[str, Callable[[Kernels], object]]:
    """The small ones, as calls by name."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.bfloat16)

    x, residual = random(batch, model.hidden), random(batch, model.hidden)
    weight = random(model.hidden)
    merged = random(batch, 2 * model.intermediate)
    query = random(batch, model.heads, model.dim)
    key, value = random(batch, model.kv_heads, model.dim), random(batch, model.kv_heads, model.dim)
    angles = {"cos": random(batch, model.dim), "sin": random(batch, model.dim)}
    caches = {
        name: random(batch, 16, model.kv_heads, model.dim) for name in ("key_cache", "value_cache")
    }
    slots = torch.arange(batch) * 16
    return {
        "rms_norm": lambda which: which.rms_norm(x, weight, 1e-5),
        "add_rms_norm": lambda which: which.add_rms_norm(x, residual, weight, eps=1e-5),
        "silu_mul": lambda which: which.silu_mul(merged),
        "gelu_tanh_mul": lambda which: which.gelu_tanh_mul(merged),
        "rotary_to_cache": lambda which: which.rotary_to_cache(
            query, key, value, **angles, slots=slots, **caches
        ),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row of the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kernels = load()
    if kernels is None:
        raise SystemExit("no compiled kernels on this machine")
    print("attention    batch  context  compiled us  torch us  ratio   GB/s")
    for model in MODELS:
        for batch in BATCHES:
            for context in CONTEXTS:
                ours, theirs, rate = attention(
                    kernels, model, batch=batch, context=context, seconds=arguments.seconds
                )
                print(
                    f"{model.name:12} {batch:5}  {context:7}  {ours:11.1f}  {theirs:8.1f}"
                    f"  {theirs / ours:5.1f}  {rate:5.1f}"
                )
    print("small operations              batch  compiled us  torch us  ratio")
    for model in MODELS:
        for batch in BATCHES:
            found = small_operations(kernels, model, batch=batch, seconds=arguments.seconds / 2)
            for name, (ours, theirs) in found.items():
                print(
                    f"{model.name:12} {name:16} {batch:5}  {ours:11.1f}  {theirs:8.1f}"
                    f"  {theirs / ours:5.1f}"
                )


if __name__ == "__main__":
    main()
