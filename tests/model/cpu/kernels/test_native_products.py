"""The compiled products of rows and packed weights: equal to plain torch, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels, plain

KINDS = ["bfloat16", "int8", "words"]  # words: int8 as well, for rows of 12 bits
OPTIONS: dict[str, dict[str, int]] = {"int8": {}, "words": {"activation_bits": 12}}


@dataclass(frozen=True)
class Product:
    """Rows, a weight and what `int8_linear` wants beside it."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    packed: Tensor

    @classmethod
    def of(
        cls, kernels: Kernels, shape: tuple[int, int, int], kind: str, *, has_bias: bool
    ) -> Product:
        """shape: rows, inputs, outputs. kind: of the weight; rows are bfloat16."""
        rows, inputs, outputs = shape
        generator = torch.Generator().manual_seed(sum(shape))
        weight = torch.randn(outputs, inputs, generator=generator)
        if kind == "bfloat16":
            weight, options = weight.bfloat16(), {}
        else:
            weight, options = (weight * 40).clamp(-127, 127).to(torch.int8), OPTIONS[kind]
        x = torch.randn(rows, inputs, generator=generator).bfloat16()
        bias = torch.randn(outputs, generator=generator).bfloat16() if has_bias else None
        return cls(x, weight, bias, kernels.pack_weight(weight, **options))

    def rows(self, index: slice) -> Product:
        return replace(self, x=self.x[index])

    def compute(self, kernels: Kernels) -> Tensor:
        outputs = len(self.weight)
        if self.weight.dtype != torch.int8:
            return kernels.packed_linear(self.x, self.packed, outputs, self.bias)
        sums = self.weight.sum(1, dtype=torch.int32)
        scales = torch.linspace(1e-3, 2e-3, outputs)
        return kernels.int8_linear(self.x, self.packed, sums, scales, self.bias)


PRODUCTS = [
    (0, 70, 50),
    (1, 64, 64),
    (2, 37, 50),
    (5, 130, 65),
    (6, 64, 16),
    (7, 65, 1),
    (49, 64, 130),
    (100, 300, 70),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", PRODUCTS)
def test_products(kernels: Kernels, kind: str, has_bias: bool, shape: tuple[int, int, int]) -> None:
    product = Product.of(kernels, shape, kind, has_bias=has_bias)
    options = OPTIONS.get(kind, {})
    assert torch.equal(product.packed, plain().pack_weight(product.weight, **options))
    got, truth = product.compute(kernels), product.compute(plain())
    torch.testing.assert_close(got, truth, rtol=2**-7, atol=1e-3)
    assert got.numel() == 0 or (got == truth).float().mean() > 0.98


def test_the_meaning_of_products() -> None:
    """In plain torch: a packed weight is the weight, rounded rows are nearly the rows."""
    product = Product.of(plain(), (9, 100, 70), "bfloat16", has_bias=True)
    truth = torch.nn.functional.linear(product.x, product.weight, product.bias)
    torch.testing.assert_close(product.compute(plain()), truth)
    for kind, bound in (("int8", 1e-2), ("words", 6e-4)):
        product = Product.of(plain(), (9, 100, 70), kind, has_bias=False)
        product = replace(product, x=product.x.float())
        scales = torch.linspace(1e-3, 2e-3, 70)
        truth = product.x @ (product.weight.float() * scales.unsqueeze(1)).t()
        error = (product.compute(plain()) - truth).norm() / truth.norm()
        assert bound / 4 < error < bound


@pytest.mark.parametrize("inputs", [8260, 8261, 20_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_many_words_fit(kernels: Kernels, inputs: int, sign: int) -> None:
    weight = torch.full((3, inputs), 127, dtype=torch.int8)
    packed, sums = kernels.pack_weight(weight, activation_bits=12), weight.sum(1, dtype=torch.int32)
    x = torch.full((2, inputs), 3.0 * sign)
    got = kernels.int8_linear(x, packed, sums, torch.full((3,), 1 / 127))
    torch.testing.assert_close(got, torch.full((2, 3), 3.0 * sign * inputs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "inputs", [70, 6000]
)  # a block that stays in a core's cache, one that does not
def test_a_product_depends_on_its_row_only(kernels: Kernels, kind: str, inputs: int) -> None:
    """Contract 2, bit for bit: alone, among any number of rows, on any number of threads."""
    product = Product.of(kernels, (101, inputs, 200), kind, has_bias=True)
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


@pytest.mark.parametrize("kind", ["int8", "words"])
def test_int8_rows_of_zeros_and_of_large_numbers(kernels: Kernels, kind: str) -> None:
    product = Product.of(kernels, (3, 64, 64), kind, has_bias=False)
    product.x[0] = 0
    product.x[1] *= 1e20
    got = product.compute(kernels)
    assert torch.equal(got[0], torch.zeros(64, dtype=torch.bfloat16))
    torch.testing.assert_close(got, product.compute(plain()), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_and_stays_alone(
    kernels: Kernels, kind: str, number: float
) -> None:
    """Contract 4: or an answer would go on as if nothing had happened."""
    product = Product.of(kernels, (3, 70, 64), kind, has_bias=False)
    whole = product.compute(kernels)
    product.x[1, 69] = number
    got = product.compute(kernels)
    assert not got[1].isfinite().any()
    assert torch.equal(got[::2], whole[::2])


@pytest.mark.parametrize("kind", KINDS)
def test_products_refuse(kernels: Kernels, kind: str) -> None:
    product = Product.of(kernels, (3, 64, 70), kind, has_bias=True)
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
    with pytest.raises(RuntimeError, match="dtype"):
        kernels.pack_weight(torch.zeros(2, 2).bfloat16(), activation_bits=12)
