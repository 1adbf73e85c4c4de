"""The compiled products of rows and packed weights: equal to plain torch, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from millstream.model.native.kernels import Kernels, plain


@dataclass(frozen=True)
class Product:
    """Rows, a weight and what `int8_linear` wants beside it."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    packed: Tensor

    @classmethod
    def of(
        cls, kernels: Kernels, shape: tuple[int, int, int], dtype: torch.dtype, *, has_bias: bool
    ) -> Product:
        """shape: rows, inputs, outputs. dtype: of the weight; int8 goes with rows of bfloat16."""
        rows, inputs, outputs = shape
        generator = torch.Generator().manual_seed(sum(shape))
        weight = torch.randn(outputs, inputs, generator=generator)
        weight = (
            (weight * 40).clamp(-127, 127).to(dtype) if dtype == torch.int8 else weight.to(dtype)
        )
        x = torch.randn(rows, inputs, generator=generator).bfloat16()
        bias = torch.randn(outputs, generator=generator).bfloat16() if has_bias else None
        return cls(x, weight, bias, kernels.pack_weight(weight))

    def rows(self, index: slice) -> Product:
        return replace(self, x=self.x[index])

    def compute(self, kernels: Kernels) -> Tensor:
        outputs = len(self.weight)
        if self.weight.dtype != torch.int8:
            return kernels.packed_linear(self.x, self.packed, outputs, self.bias)
        sums = self.weight.sum(1, dtype=torch.int32)
        scales = torch.linspace(1e-3, 2e-3, outputs)
        return kernels.int8_linear(self.x, self.packed, sums, scales, self.bias)


WEIGHTS = [torch.bfloat16, torch.int8]
PRODUCTS = [
    (1, 64, 64),
    (2, 37, 50),
    (5, 130, 65),
    (6, 64, 16),
    (7, 65, 1),
    (49, 64, 130),
    (100, 300, 70),
]


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", PRODUCTS)
def test_products(
    kernels: Kernels, dtype: torch.dtype, has_bias: bool, shape: tuple[int, int, int]
) -> None:
    product = Product.of(kernels, shape, dtype, has_bias=has_bias)
    assert torch.equal(product.packed, plain().pack_weight(product.weight))
    got, truth = product.compute(kernels), product.compute(plain())
    torch.testing.assert_close(got, truth, rtol=2**-7, atol=1e-3)
    assert (got == truth).float().mean() > 0.98


def test_the_meaning_of_products() -> None:
    """In plain torch: a packed weight is the weight, rounded rows are nearly the rows."""
    product = Product.of(plain(), (9, 100, 70), torch.bfloat16, has_bias=True)
    truth = torch.nn.functional.linear(product.x, product.weight, product.bias)
    torch.testing.assert_close(product.compute(plain()), truth)
    product = Product.of(plain(), (9, 100, 70), torch.int8, has_bias=False)
    scales = torch.linspace(1e-3, 2e-3, 70)
    truth = product.x.float() @ (product.weight.float() * scales.unsqueeze(1)).t()
    error = product.compute(plain()).float() - truth
    assert error.norm() < 0.01 * truth.norm()


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize(
    "inputs", [70, 6000]
)  # a block that stays in a core's cache, one that does not
def test_a_product_depends_on_its_row_only(
    kernels: Kernels, dtype: torch.dtype, inputs: int
) -> None:
    """Contract 2, bit for bit: alone, among any number of rows, on any number of threads."""
    product = Product.of(kernels, (101, inputs, 200), dtype, has_bias=True)
    together = product.compute(kernels)
    torch.testing.assert_close(together, product.compute(plain()), rtol=2**-6, atol=1e-2)
    for first, last in ((0, 1), (0, 2), (3, 8), (50, 56), (7, 67), (100, 101)):
        part = slice(first, last)
        assert torch.equal(product.rows(part).compute(kernels), together[part])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(product.compute(kernels), together)
    finally:
        torch.set_num_threads(threads)


def test_int8_rows_of_zeros_and_of_large_numbers(kernels: Kernels) -> None:
    product = Product.of(kernels, (3, 64, 64), torch.int8, has_bias=False)
    product.x[0] = 0
    product.x[1] *= 1e20
    got = product.compute(kernels)
    assert torch.equal(got[0], torch.zeros(64, dtype=torch.bfloat16))
    torch.testing.assert_close(got, product.compute(plain()), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_and_stays_alone(
    kernels: Kernels, dtype: torch.dtype, number: float
) -> None:
    """Contract 4: or an answer would go on as if nothing had happened."""
    product = Product.of(kernels, (3, 70, 64), dtype, has_bias=False)
    whole = product.compute(kernels)
    product.x[1, 69] = number
    got = product.compute(kernels)
    assert not got[1].isfinite().any()
    assert torch.equal(got[::2], whole[::2])


@pytest.mark.parametrize("dtype", WEIGHTS)
def test_products_refuse(kernels: Kernels, dtype: torch.dtype) -> None:
    product = Product.of(kernels, (3, 64, 70), dtype, has_bias=True)
    for change, message in (
        ({"x": product.x[:, :60].contiguous()}, "do not fit"),
        ({"weight": product.weight[:64]}, "fit"),
        ({"bias": torch.zeros(69).bfloat16()}, "fit"),
        ({"packed": product.packed[:, :, :32].contiguous()}, "not a packed weight"),
    ):
        with pytest.raises(RuntimeError, match=message):
            replace(product, **change).compute(kernels)
    with pytest.raises(RuntimeError, match="dtype"):
        kernels.pack_weight(torch.zeros(2, 2).half())
