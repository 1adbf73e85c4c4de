"""How products are shared out: halves of blocks, parts of large blocks, and any number of rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from millstream.model.native.kernels import Kernels, plain
from tests.model.test_native_products import WEIGHTS, Product

ROWS = [1, 2, 3, 4, 5, 6, 7, 16, 47, 48, 49, 100]
OWN, TORCHS = -1, 0
WORKERS = [(count, whose) for count in (1, 2, 3, 4, 5) for whose in (OWN, TORCHS)] + [(1, 7)]


@pytest.fixture(autouse=True)
def restored(kernels: Kernels) -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    kernels.use_threads(OWN)


def on_all_threads(product: Product, kernels: Kernels) -> Iterator[Tensor]:
    for count, whose in WORKERS:
        torch.set_num_threads(count)
        kernels.use_threads(whose)
        yield product.compute(kernels)


def assert_right(got: Tensor, product: Product) -> None:
    truth = product.compute(plain())
    torch.testing.assert_close(got, truth, rtol=2**-7, atol=2e-3)
    assert (got == truth).float().mean() > 0.98


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 7, 11])
@pytest.mark.parametrize("last", [1, 16, 31, 32, 33, 48, 63, 64])
def test_the_last_blocks_are_halved(
    kernels: Kernels, dtype: torch.dtype, blocks: int, last: int
) -> None:
    """last: channels of the last block."""
    outputs = 64 * (blocks - 1) + last
    product = Product.of(kernels, (7, 50, outputs), dtype, has_bias=True)
    first, *others = on_all_threads(product, kernels)
    assert_right(first, product)
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize(
    ("dtype", "inputs"),
    [
        (torch.bfloat16, 2047),
        (torch.bfloat16, 2048),  # the most that is one part
        (torch.bfloat16, 2049),
        (torch.bfloat16, 4096),
        (torch.bfloat16, 5000),
        (torch.int8, 4095),
        (torch.int8, 4096),  # the same
        (torch.int8, 4097),
        (torch.int8, 8192),
        (torch.int8, 9000),
    ],
)
def test_large_blocks_are_taken_in_parts(kernels: Kernels, dtype: torch.dtype, inputs: int) -> None:
    product = Product.of(kernels, (max(ROWS), inputs, 96), dtype, has_bias=True)
    first, *others = on_all_threads(product, kernels)
    assert_right(first, product)
    assert all(torch.equal(other, first) for other in others)
    for rows in ROWS:
        assert torch.equal(product.rows(slice(rows)).compute(kernels), first[:rows])
        assert torch.equal(product.rows(slice(-rows, None)).compute(kernels), first[-rows:])


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("rows", ROWS)
def test_any_number_of_rows(kernels: Kernels, dtype: torch.dtype, rows: int) -> None:
    product = Product.of(kernels, (rows, 100, 200), dtype, has_bias=False)
    first, *others = on_all_threads(product, kernels)
    assert_right(first, product)
    assert all(torch.equal(other, first) for other in others)
    alone = [product.rows(slice(row, row + 1)).compute(kernels) for row in range(rows)]
    assert torch.equal(torch.cat(alone), first)


def test_numbers_of_threads_that_there_are_not(kernels: Kernels) -> None:
    with pytest.raises(RuntimeError, match="no such number of threads: -2"):
        kernels.use_threads(-2)
