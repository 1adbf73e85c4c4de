"""Packed linears compute what the linears they replace compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from millstream.model.cpu import packing
from millstream.model.cpu.kernels import plain
from millstream.model.cpu.linears import NativeLinear, PackedLinear
from millstream.model.cpu.packing import is_supported, pack_linears

needs_packing = pytest.mark.skipif(not is_supported(), reason="oneDNN packing is not available")


def bfloat16_linear(*, bias: bool) -> nn.Linear:
    linear = nn.Linear(96, 160, bias=bias, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    return linear


@needs_packing
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 16, 70])
def test_equal_to_the_linear(rows: int, bias: bool) -> None:
    linear = bfloat16_linear(bias=bias)
    hidden = torch.randn(1, rows, 96, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.inference_mode():
        exact = nn.functional.linear(
            hidden.double(), linear.weight.double(), linear.bias.double() if bias else None
        )
        packed = PackedLinear(linear)(hidden)
    assert packed.shape == (1, rows, 160)
    torch.testing.assert_close(packed.double(), exact, rtol=0.01, atol=0.1)


@needs_packing
def test_only_plain_bfloat16_linears_are_replaced() -> None:
    class Special(nn.Linear):
        """A linear with a meaning of its own."""

    model = nn.Sequential(
        bfloat16_linear(bias=True),
        nn.Linear(8, 8),
        Special(8, 8, dtype=torch.bfloat16),
        nn.Sequential(bfloat16_linear(bias=False)),
    )
    assert pack_linears(model) == 2
    kinds = [type(module) for module in model.modules() if hasattr(module, "in_features")]
    assert kinds == [PackedLinear, nn.Linear, Special, PackedLinear]


@pytest.mark.parametrize("bias", [False, True])
def test_the_compiled_product_is_used_where_it_is_the_fastest(bias: bool) -> None:
    fast = replace(plain(), fast_products=lambda: (True, False, False, False))
    linear = bfloat16_linear(bias=bias)
    model = nn.Sequential(linear, nn.Linear(160, 8))
    assert pack_linears(model, fast) == 1
    assert [type(module) for module in model] == [NativeLinear, nn.Linear]
    hidden = torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.inference_mode():
        got, rows = model[0](hidden), model[0](hidden[0])
        torch.testing.assert_close(got, linear(hidden))
    assert torch.equal(rows, got[0])
    if is_supported():
        other = nn.Sequential(bfloat16_linear(bias=bias))
        assert pack_linears(other, plain()) == 1
        assert type(other[0]) is PackedLinear


def test_a_model_is_left_alone_where_packing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(linear: nn.Linear) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(packing, "PackedLinear", missing)
    model = nn.Sequential(bfloat16_linear(bias=False))
    assert pack_linears(model) == 0
    assert type(model[0]) is nn.Linear
