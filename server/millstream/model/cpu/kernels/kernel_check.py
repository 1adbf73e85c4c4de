"""Do compiled kernels compute what plain torch does? A few small cases of each, at every start.

A wrong compiler, flag or library shows here rather than in what users read.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from millstream.model.cpu.kernels.function_table import Kernels
from millstream.model.grouped import FORMATS, pack
from millstream.model.tolerance import OPERATORS

_TOKENS = 3
_MANY_TOKENS = 37  # products by matrix units are for many rows


def differences(kernels: Kernels, expected: Kernels) -> list[str]:
    """Names of the kernels, with their cases and dtypes, that differ from `expected`."""
    wrong: list[str] = []
    for dtype, tolerance in OPERATORS.items():
        results, truth = dict(_run(kernels, dtype)), dict(_run(expected, dtype))
        for name, tensors in truth.items():
            pairs = zip(results[name], tensors, strict=True)
            if not all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs):
                wrong.append(f"{name} in {dtype}")
    return wrong


class _Random:
    """Tensors of one dtype, the same in every run."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.dtype)

    def whole(self, *shape: int, most: int) -> Tensor:
        """From -most to most - 1."""
        found = torch.randint(-most, most, shape, generator=self._generator)
        return found.to(torch.int8)

    def order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator)


Results = Iterator[tuple[str, tuple[Tensor, ...]]]


def _run(kernels: Kernels, dtype: torch.dtype) -> Results:
    random = _Random(dtype)
    for dim in (64, 80):
        yield from _attention(kernels, random, dim)
        yield from _linears(kernels, random, dim)
        yield from _recurrent(kernels, random, dim)
        x, other, weight = random(_TOKENS, dim), random(_TOKENS, dim), random(dim)
        yield f"rms_norm {dim}", (kernels.rms_norm(x, weight, 1e-5, unit_offset=True),)
        yield f"add_rms_norm {dim}", kernels.add_rms_norm(x, other, weight, eps=1e-5)
        yield f"best_tokens {dim}", (kernels.best_tokens(x),)
        yield f"silu {dim}", (kernels.silu_mul(x),)
        yield f"gelu {dim}", (kernels.gelu_tanh_mul(x),)


def _attention(kernels: Kernels, random: _Random, dim: int) -> Results:
    heads = 6
    keys, values = random(42, 8, 2, dim), random(42, 8, 2, dim)
    tables = random.order(42).view(1, 42).expand(_TOKENS, 42)
    positions = torch.tensor([0, 100, 330])
    starts, lengths = torch.tensor([0, 250]), torch.tensor([3, 80])
    options = {"scale": dim**-0.5, "sinks": random(heads).float()}
    for extra in ({}, {"window": 20}, {"softcap": 5.0, "sinks": None}):
        chosen = {**options, **extra}
        query = random(_TOKENS, heads, dim)
        out = kernels.paged_attention_decode(query, keys, values, tables, positions, **chosen)
        yield f"attention {dim} {sorted(extra)}", (out,)
        query = random(83, heads, dim)
        out = kernels.paged_attention_prefill(
            query, keys, values, tables[:2], starts, lengths, **chosen
        )
        yield f"prefill {dim} {sorted(extra)}", (out,)
    turned = kernels.rotary_to_cache(
        random(_TOKENS, heads, dim),
        random(_TOKENS, 2, dim),
        random(_TOKENS, 2, dim),
        cos=random(_TOKENS, dim),
        sin=random(_TOKENS, dim),
        slots=torch.tensor([5, 0, 335]),
        key_cache=keys,
        value_cache=values,
    )
    yield f"rotary {dim}", (*turned, keys, values)


def _linears(kernels: Kernels, random: _Random, dim: int) -> Results:
    x, matrix, bias = random(_TOKENS, dim), random(70, dim).bfloat16(), random(70)
    packed = kernels.pack_weight(matrix)
    out = kernels.packed_linear(x.bfloat16(), packed, 70, bias.bfloat16())
    yield f"packed_linear {dim}", (packed, out)
    matrix = (20 * matrix).to(torch.int8)
    sums, scales = matrix.sum(1, dtype=torch.int32), torch.full((70,), 1e-3)
    for activation_bits in (8, 12):
        packed = kernels.pack_weight(matrix, activation_bits=activation_bits)
        for rows in (_TOKENS, _MANY_TOKENS):
            out = kernels.int8_linear(random(rows, dim), packed, sums, scales, bias)
            yield f"int8_linear {dim} {activation_bits} {rows}", (packed, out)
    for form in FORMATS:
        numbers = random.whole(70, dim, most=2 ** (form.bits - 1))
        shared = [random.whole(70, -(-dim // form.group), most=100) for _ in range(2)]
        packed, scales = pack(numbers, *shared, form=form), torch.full((70,), 1e-4)
        for rows in (_TOKENS, _MANY_TOKENS):
            out = kernels.grouped_linear(random(rows, dim), packed, scales, bias)
            yield f"grouped_linear {form} {dim} {rows}", (out,)


def _recurrent(kernels: Kernels, random: _Random, dim: int) -> Results:
    sequences = {
        "sources": torch.tensor([2, -1, 0]),
        "targets": torch.tensor([2, 0, 1]),
        "firsts": torch.tensor([0, 1, 6, 9], dtype=torch.int32),
    }
    rows = 9
    states = random(3, dim, 4)
    for bias in (None, random(dim)):
        out = kernels.short_convolution(
            random(rows, dim), random(dim, 4), bias, states=states, silu=bias is None, **sequences
        )
        yield f"short_convolution {dim}", (out, states)
    matrices = random(3, 4, dim, 40).float()
    for decays in ((), (dim,)):
        out = kernels.gated_delta_rule(
            random(rows, 2, dim),
            random(rows, 2, dim),
            random(rows, 4, 40),
            g=-random(rows, 4, *decays).float().abs(),
            beta=random(rows, 4).sigmoid(),
            states=matrices,
            normalise=True,
            **sequences,
        )
        yield f"gated_delta_rule {dim} {len(decays)}", (out, matrices)
