"""Quantised layers side by side as one: the same bits, and the layers left as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.linears import (
    NativeGroupedLinear,
    NativeInt8Linear,
    NativeQuantizedLinear,
)
from millstream.model.cpu.packing import packing
from millstream.model.decoder.parts import Joined
from millstream.model.int4 import Int4Linear
from tests.model.architectures import make_model
from tests.model.compiled_cases import FusedModel, Sequence, mixed

INPUTS = 70


def layer(
    kernels: Kernels,
    outputs: int,
    *,
    has_bias: bool,
    dtype: torch.dtype = torch.bfloat16,
    scheme: str = "int8",
) -> NativeQuantizedLinear:
    generator = torch.Generator().manual_seed(outputs + has_bias)
    if scheme == "int4":
        linear = nn.Linear(INPUTS, outputs, bias=has_bias, dtype=dtype)
        made = Int4Linear(linear)
        made.quantize(torch.randn(outputs, INPUTS, generator=generator))
        return NativeGroupedLinear(made, kernels)
    weight = torch.randint(-127, 128, (outputs, INPUTS), generator=generator).to(torch.int8)
    scales = torch.rand(outputs, 1, generator=generator) / 100
    bias = nn.Parameter(torch.randn(outputs, generator=generator).to(dtype))
    return NativeInt8Linear(weight, scales, bias if has_bias else None, kernels)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "biases",
    [
        (False, False, False),
        (True, True, True),
        (False, True, False),
        (True, False, False),
        (False, False, True),
    ],
)
@torch.inference_mode()
def test_merged_layers_give_the_same_bits(
    kernels: Kernels, dtype: torch.dtype, biases: tuple[bool, bool, bool], scheme: str
) -> None:
    layers = [
        layer(kernels, outputs, has_bias=has_bias, dtype=dtype, scheme=scheme)
        for outputs, has_bias in zip((128, 64, 50), biases, strict=True)
    ]
    assert layers[0].can_merge(layers)
    hidden = torch.randn(9, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)
    separate = [one(hidden) for one in layers]
    merged = layers[0].merged(layers)
    assert (merged.in_features, merged.out_features) == (INPUTS, 242)
    assert (merged.bias is None) == (not any(biases))
    assert torch.equal(merged(hidden), torch.cat(separate, dim=-1))
    for rows in (1, 5):
        assert torch.equal(merged(hidden[:rows]), merged(hidden)[:rows])
    for one, expected in zip(layers, separate, strict=True):
        assert torch.equal(one(hidden), expected)


def test_a_bias_is_not_shared_with_the_first_layer(kernels: Kernels) -> None:
    layers = [layer(kernels, 64, has_bias=True), layer(kernels, 64, has_bias=False)]
    merged = layers[0].merged(layers)
    assert merged.bias is not None
    assert len(merged.bias) == 128
    assert layers[0].bias is not None
    assert len(layers[0].bias) == 64


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [((64, 64), True), ((64, 50), True), ((50,), True), ((50, 64), False), ((64, 32, 64), False)],
)
@torch.inference_mode()
def test_layers_that_end_within_a_block_are_not_merged(
    kernels: Kernels, outputs: tuple[int, ...], expected: bool
) -> None:
    layers = [layer(kernels, size, has_bias=False) for size in outputs]
    assert NativeInt8Linear.can_merge(layers) == expected
    hidden = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(2)).bfloat16()
    wanted = torch.cat([one(hidden) for one in layers], dim=-1)
    joined = Joined(layers)
    joined.merge(packing(kernels))
    assert len(joined.linears) == (1 if expected else len(outputs))
    assert torch.equal(joined(hidden), wanted)


@pytest.mark.parametrize("other", ["plain", "int4"])
@torch.inference_mode()
def test_layers_of_several_kinds_are_not_merged(kernels: Kernels, other: str) -> None:
    second: nn.Module = nn.Linear(INPUTS, 64, dtype=torch.bfloat16)
    if other == "int4":
        second = layer(kernels, 64, has_bias=True, scheme="int4")
    joined = Joined([layer(kernels, 64, has_bias=True), second])
    hidden = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(3)).bfloat16()
    wanted = joined(hidden)
    joined.merge(packing(kernels))
    assert len(joined.linears) == 2
    torch.testing.assert_close(joined(hidden), wanted, rtol=0.02, atol=0.02)


def test_a_model_of_merged_layers_answers_the_same(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases for queries, keys and values, none in the MLP."""
    make_model("qwen2", tmp_path, num_key_value_heads=4, intermediate_size=128)
    chosen, plans = (
        replace(kernels, fast_products=lambda: (True, True, True, True)),
        mixed(Sequence.all()),
    )
    merged = FusedModel.load(tmp_path, chosen, dtype="bfloat16", quantize="int8")
    monkeypatch.setattr(NativeInt8Linear, "can_merge", staticmethod(lambda linears: False))
    separate = FusedModel.load(tmp_path, chosen, dtype="bfloat16", quantize="int8")
    assert merged.fused.is_whole
    assert separate.fused.summary.endswith("linear layers that cannot be merged")
    for got, truth in zip(merged.run(plans), separate.run(plans), strict=True):
        assert torch.equal(got, truth)
