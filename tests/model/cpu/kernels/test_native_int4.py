"""The compiled product of rows and weights of four bits: equal to plain torch, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels
from millstream.model.int4 import int4_linear, pack_int4, quantize_int4

COUNTS = (1, 2, 5, 6, 7, 16, 23, 24, 25, 33, 64)  # few rows, and so many that tiles multiply them


def weight(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(outputs + inputs)
    return quantize_int4(torch.randn(outputs, inputs, generator=generator))


def rows(count: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count)).to(dtype)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(64, 32), (1, 1), (65, 37), (130, 300), (200, 1056)])
def test_products(kernels: Kernels, shape: tuple[int, int], dtype: torch.dtype) -> None:
    packed, scales = weight(*shape)
    bias = torch.linspace(-1, 1, shape[0]).to(dtype)
    for count in (0, 1, 4, 24, 50):
        for added in (None, bias):
            x = rows(count, shape[1], dtype)
            got = kernels.int4_linear(x, packed, scales, added)
            truth = int4_linear(x, packed, scales, added)
            torch.testing.assert_close(got, truth, rtol=2**-7, atol=1e-4)
            assert count == 0 or (got == truth).float().mean() > 0.98


@pytest.mark.parametrize("inputs", [70, 9000])  # a block that a core's cache keeps, one it does not
def test_a_product_depends_on_its_row_only(kernels: Kernels, inputs: int) -> None:
    """Contract 2, bit for bit: alone, among any number of rows, on any number of threads."""
    packed, scales = weight(200, inputs)
    x = rows(101, inputs)
    together = kernels.int4_linear(x, packed, scales)
    for count in COUNTS:
        for first in (0, 37):
            some = slice(first, first + count)
            assert torch.equal(kernels.int4_linear(x[some], packed, scales), together[some])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(kernels.int4_linear(x, packed, scales), together)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [1, 30])
def test_the_largest_sums_fit(kernels: Kernels, count: int, sign: int) -> None:
    """Of a group into 16 bits, of all of them into 32."""
    inputs = 16_000
    numbers = torch.full((3, inputs), -8, dtype=torch.int8)
    multipliers = torch.full((3, inputs // 32), 127, dtype=torch.int8)
    multipliers[1] = -127
    x = torch.full((count, inputs), float(sign))
    got = kernels.int4_linear(x, pack_int4(numbers, multipliers), torch.ones(3))
    one = -8.0 * 127 * inputs * sign
    torch.testing.assert_close(got, torch.tensor([one, -one, one]).expand(count, 3))


@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_and_stays_alone(
    kernels: Kernels, number: float, count: int
) -> None:
    """Contract 4: or an answer would go on as if nothing had happened."""
    packed, scales = weight(64, 70)
    x = rows(count, 70)
    whole = kernels.int4_linear(x, packed, scales)
    x[1, 69] = number
    got = kernels.int4_linear(x, packed, scales)
    assert not got[1].isfinite().any()
    assert torch.equal(got[2:], whole[2:])
    assert torch.equal(got[:1], whole[:1])


def test_rows_of_zeros_and_of_large_numbers(kernels: Kernels) -> None:
    packed, scales = weight(64, 64)
    x = rows(3, 64)
    x[0] = 0
    x[1] *= 1e20
    got = kernels.int4_linear(x, packed, scales)
    assert torch.equal(got[0], torch.zeros(64, dtype=torch.bfloat16))
    torch.testing.assert_close(got, int4_linear(x, packed, scales), rtol=2**-7, atol=1e-3)


def test_products_refuse(kernels: Kernels) -> None:
    packed, scales = weight(70, 64)
    x, bias = rows(3, 64), torch.zeros(70).bfloat16()
    for arguments, message in (
        ((x[:, :30].contiguous(), packed, scales, bias), "do not fit"),
        ((x, packed[:1], scales, bias), "do not fit"),
        ((x, packed, scales[:60], bias), "do not fit"),
        ((x, packed, scales, bias[:60]), "do not fit"),
        ((x, packed, scales, bias.float()), "do not fit"),
        ((x, packed[..., :1024].contiguous(), scales, bias), "not a packed weight"),
        ((x, packed.view(torch.int8), scales, bias), "not a packed weight"),
        ((x.half(), packed, scales, None), "dtype"),
    ):
        with pytest.raises(RuntimeError, match=message):
            kernels.int4_linear(*arguments)
