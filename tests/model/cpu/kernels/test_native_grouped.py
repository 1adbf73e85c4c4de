"""The compiled product of rows and weights in groups: equal to plain torch, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels
from millstream.model.grouped import FORMATS, Format, grouped_linear, pack

COUNTS = (1, 2, 5, 6, 7, 16, 23, 24, 25, 33, 64)  # few rows, and so many that tiles multiply them

every_format = pytest.mark.parametrize("form", FORMATS, ids=str)


def weight(outputs: int, inputs: int, form: Format) -> tuple[Tensor, Tensor]:
    """Packed, with multipliers and offsets of any size, and scales."""
    generator = torch.Generator().manual_seed(outputs + inputs)

    def whole(low: int, high: int, size: int) -> Tensor:
        return torch.randint(low, high, (outputs, size), generator=generator)

    top, groups = 2 ** (form.bits - 1), -(-inputs // form.group)
    most = (3000 if form.bits == 4 else 255) if form.is_wide else 127
    numbers = whole(-top, top, inputs).to(torch.int8)
    offsets = whole(-8000, 8000, groups) if form.has_offsets else None
    packed = pack(numbers, whole(-most, most + 1, groups), offsets, form=form)
    return packed, torch.rand(outputs, generator=generator) / (most * top * inputs**0.5)


def rows(count: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count)).to(dtype)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@every_format
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(64, 32), (1, 1), (65, 37), (130, 300), (200, 1056)])
def test_products(
    kernels: Kernels, form: Format, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    packed, scales = weight(*shape, form)
    bias = torch.linspace(-1, 1, shape[0]).to(dtype)
    for count in (0, 1, 4, 24, 50):
        for added in (None, bias):
            x = rows(count, shape[1], dtype)
            got = kernels.grouped_linear(x, packed, scales, added)
            truth = grouped_linear(x, packed, scales, added)
            tolerance = 2**-7 if dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(got, truth, rtol=tolerance, atol=1e-5)


@every_format
@pytest.mark.parametrize("inputs", [70, 9000])  # a block that a core's cache keeps, one it does not
def test_a_product_depends_on_its_row_only(kernels: Kernels, form: Format, inputs: int) -> None:
    """Contract 2, bit for bit: alone, among any number of rows, on any number of threads."""
    packed, scales = weight(200, inputs, form)
    x = rows(101, inputs, torch.float32)
    together = kernels.grouped_linear(x, packed, scales)
    for count in COUNTS:
        for first in (0, 37):
            some = slice(first, first + count)
            assert torch.equal(kernels.grouped_linear(x[some], packed, scales), together[some])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(kernels.grouped_linear(x, packed, scales), together)


@every_format
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [1, 30])
def test_the_largest_sums_fit(kernels: Kernels, form: Format, count: int, sign: int) -> None:
    """Of a section into 16 bits, of a few into 32, of all of them however many."""
    inputs = 16_000
    number = -(2 ** (form.bits - 1))
    most = (4095 if form.bits == 4 else 255) if form.is_wide else 127
    numbers = torch.full((3, inputs), number, dtype=torch.int8)
    multipliers = torch.full((3, -(-inputs // form.group)), most)
    multipliers[1] *= -1
    x = torch.full((count, inputs), float(sign))
    one = float(number * most * inputs * sign)
    packed = pack(numbers, multipliers, form=form)
    got = kernels.grouped_linear(x, packed, torch.ones(3))
    torch.testing.assert_close(got, torch.tensor([one, -one, one]).expand(count, 3))
    if form.has_offsets:
        packed = pack(numbers, 0 * multipliers, 8 * multipliers, form=form)
        got = kernels.grouped_linear(x, packed, torch.ones(3))
        torch.testing.assert_close(got, torch.tensor([-one, one, -one]).expand(count, 3))


@every_format
@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_and_stays_alone(
    kernels: Kernels, form: Format, number: float, count: int
) -> None:
    """Contract 4: or an answer would go on as if nothing had happened."""
    packed, scales = weight(64, 70, form)
    x = rows(count, 70)
    whole = kernels.grouped_linear(x, packed, scales)
    x[1, 69] = number
    got = kernels.grouped_linear(x, packed, scales)
    assert not got[1].isfinite().any()
    assert torch.equal(got[2:], whole[2:])
    assert torch.equal(got[:1], whole[:1])


@every_format
def test_rows_of_zeros_and_of_large_numbers(kernels: Kernels, form: Format) -> None:
    packed, scales = weight(64, 64, form)
    x = rows(3, 64)
    x[0] = 0
    x[1] *= 1e20
    got = kernels.grouped_linear(x, packed, scales)
    assert torch.equal(got[0], torch.zeros(64, dtype=torch.bfloat16))
    torch.testing.assert_close(got, grouped_linear(x, packed, scales), rtol=2**-7, atol=1e-3)


def test_products_refuse(kernels: Kernels) -> None:
    packed, scales = weight(70, 64, FORMATS[0])
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
            kernels.grouped_linear(*arguments)
