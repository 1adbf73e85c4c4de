"""What a step's products with few rows take: by torch, and as they are served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from benchmarks.gpu.engine import SHAPES
from benchmarks.gpu.report import Report, seconds_of
from benchmarks.gpu.sizes import Roof, Size
from millstream.model.cuda.overlap_trial import can_overlap
from millstream.model.cuda.product_tiles import ROW_COUNTS
from millstream.model.cuda.product_trial import FewRowProducts, find_products, seconds_in_graph

_UNCACHED = 16  # weights of a few are larger than a device's cache: this part of what is copied


@torch.inference_mode()
def measure_products(report: Report, roof: Roof, size: Size, shape: str) -> None:
    """A line for each number of rows: microseconds of each weight's product, how many times as fast
    as torch's that is, and its share of the bandwidth."""
    is_cuda = size.device.type == "cuda"
    products: FewRowProducts | None = None
    if is_cuda:
        products = find_products(size.device, overlaps=can_overlap(size.device))
    seconds = seconds_in_graph if is_cuda else partial(_seconds_in_turn, size)
    parts: dict[int, list[str]] = {rows: [] for rows in ROW_COUNTS}
    total: dict[int, float] = dict.fromkeys(ROW_COUNTS, 0.0)
    for name, (outputs, inputs) in weights_of(shape).items():
        layers = _layers(outputs, inputs, size)
        num_bytes = layers[0].weight.nbytes
        served = [layer if products is None else products.pack(layer) for layer in layers]
        for rows in ROW_COUNTS:
            x = torch.randn(rows, inputs, device=size.device, dtype=size.dtype)
            torchs, ours = (
                seconds([partial(layer, x) for layer in some]) for some in (layers, served)
            )
            share = num_bytes / ours / roof.read
            parts[rows].append(f"{name} {ours * 1e6:.1f} ({torchs / ours:.2f}, {share:.0%})")
            total[rows] += ours
        del layers, served
    for rows in ROW_COUNTS:
        report.add(
            f"{shape} products, {rows} rows", f"{total[rows] * 1e6:.1f} us", ", ".join(parts[rows])
        )


def weights_of(shape: str) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each weight that a step of the shape multiplies by, merged ones as one;
    all but the last are there in every layer."""
    sizes = SHAPES[shape]
    hidden, inner, dim = (sizes[n] for n in ("hidden_size", "intermediate_size", "head_dim"))
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    return {
        "q/k/v": ((heads + 2 * kv_heads) * dim, hidden),
        "o": (hidden, heads * dim),
        "gate/up": (2 * inner, hidden),
        "down": (hidden, inner),
        "output": (sizes["vocab_size"], hidden),
    }


def _layers(outputs: int, inputs: int, size: Size) -> list[nn.Linear]:
    """So many layers that their weights do not fit into the device's cache together."""
    num_bytes = outputs * inputs * size.dtype.itemsize
    count = -(-size.copied_bytes // _UNCACHED // num_bytes) or 1
    return [
        nn.Linear(inputs, outputs, bias=False, device=size.device, dtype=size.dtype)
        for _ in range(count)
    ]


def _seconds_in_turn(size: Size, computations: Sequence[Callable[[], object]]) -> float:
    """Seconds of one of the computations, where there are no graphs."""

    def compute() -> None:
        for one in computations:
            one()

    return seconds_of(compute, size.device, rounds=size.rounds) / len(computations)
