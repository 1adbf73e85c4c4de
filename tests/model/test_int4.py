"""Weights of four bits: what they mean, and how near they are to what they were made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from millstream.model.grouped import grouped_linear, unpack
from millstream.model.int4 import BITS, Int4Linear, quantize_int4


def q4_0(weight: Tensor) -> Tensor:
    """The weight as llama.cpp's Q4_0 keeps it: `quantize_row_q4_0_ref` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c"""
    groups = weight.view(len(weight), -1, 32)
    largest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    step = largest / -8
    inverse = torch.where(step == 0, 0.0, 1 / step)
    numbers = (groups * inverse + 8.5).floor().clamp(0, 15) - 8
    return (numbers * step.half().float()).view_as(weight)


def restored(weight: Tensor) -> Tensor:
    packed, scales = quantize_int4(weight)
    return unpack(packed, *weight.shape) * scales.unsqueeze(1)


def error(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).norm() / truth.norm()).item()


def weights(kind: str) -> Tensor:
    torch.manual_seed(0)
    normal = torch.randn(256, 1024)
    columns = {
        "normal": torch.ones(1024),
        "channels 20 times as large": torch.where(torch.rand(1024) < 0.01, 20.0, 1.0),
        "channels of all sizes": torch.exp(0.5 * torch.randn(1024)),
    }
    if kind == "heavy tails":
        return torch.distributions.StudentT(3.0).sample((256, 1024))
    return normal * columns[kind]


@pytest.mark.parametrize(
    "kind",
    ["normal", "heavy tails", "channels 20 times as large", "channels of all sizes"],
)
def test_weights_are_nearer_than_by_q4_0(kind: str) -> None:
    weight = weights(kind)
    assert error(restored(weight), weight) < 0.995 * error(q4_0(weight), weight)


def test_a_weight_takes_four_bits_and_a_quarter() -> None:
    packed, _ = quantize_int4(torch.randn(128, 96))
    assert packed.nbytes == 128 * 96 * BITS / 8


def test_weights_of_zero_stay_zero() -> None:
    weight = torch.zeros(3, 70)
    assert torch.equal(restored(weight), weight)
    weight[1, 40] = 0.5
    torch.testing.assert_close(restored(weight), weight, rtol=0.02, atol=0)


def test_sums_fit_into_32_bits_however_many_inputs() -> None:
    weight = torch.full((1, 40_000), -1.0)
    whole = unpack(quantize_int4(weight)[0], *weight.shape).long()
    assert whole.abs().sum() * 127 < 2**31
    assert error(restored(weight), weight) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [False, True])
@torch.inference_mode()
def test_a_layer_is_near_the_one_it_was(dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(2)
    linear = nn.Linear(100, 70, bias=has_bias, dtype=dtype)
    hidden = torch.randn(2, 9, 100).to(dtype)
    made = Int4Linear(linear)
    made.quantize(linear.weight)
    assert made.weight is None
    truth = linear(hidden).float()
    assert made(hidden).dtype == dtype
    assert 0.02 < error(made(hidden).float(), truth) < 0.15
    plain = made.dequantized(dtype)
    assert type(plain) is nn.Linear
    assert error(plain(hidden).float(), made(hidden).float()) < 0.02  # rounded rows


def test_rows_are_rounded_each_by_itself() -> None:
    packed, scales = quantize_int4(torch.randn(64, 64, generator=torch.Generator().manual_seed(3)))
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(4))
    huge = x.clone()
    huge[1:] *= 1000
    alone = grouped_linear(x[:1], packed, scales)
    torch.testing.assert_close(grouped_linear(huge, packed, scales)[:1], alone)
