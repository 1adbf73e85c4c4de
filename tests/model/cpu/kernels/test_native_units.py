"""How products are shared out: halves of blocks, parts of large blocks, and any number of rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels, plain
from tests.model.cpu.kernels.test_native_products import KINDS, Product

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 7, 11])
@pytest.mark.parametrize("last", [1, 16, 31, 32, 33, 48, 63, 64])
def test_the_last_blocks_are_halved(kernels: Kernels, kind: str, blocks: int, last: int) -> None:
    """last: channels of the last block."""
    outputs = 64 * (blocks - 1) + last
    product = Product.of(kernels, (7, 50, outputs), kind, has_bias=True)
    first, *others = on_all_threads(product, kernels)
    assert_right(first, product)
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("bfloat16", 2047),
        ("bfloat16", 2048),  # the most that is one part
        ("bfloat16", 2049),
        ("bfloat16", 4096),
        ("bfloat16", 5000),
        ("int8", 4095),
        ("int8", 4096),  # the same
        ("int8", 4097),
        ("int8", 8192),
        ("int8", 9000),
        ("words", 4095),
        ("words", 4096),
        ("words", 4097),
        ("words", 8192),
        ("words", 9000),
    ],
)
def test_large_blocks_are_taken_in_parts(kernels: Kernels, kind: str, inputs: int) -> None:
    product = Product.of(kernels, (max(ROWS), inputs, 96), kind, has_bias=True)
    first, *others = on_all_threads(product, kernels)
    assert_right(first, product)
    assert all(torch.equal(other, first) for other in others)
    for rows in ROWS:
        assert torch.equal(product.rows(slice(rows)).compute(kernels), first[:rows])
        assert torch.equal(product.rows(slice(-rows, None)).compute(kernels), first[-rows:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS)
def test_any_number_of_rows(kernels: Kernels, kind: str, rows: int) -> None:
    product = Product.of(kernels, (rows, 100, 200), kind, has_bias=False)
    first, *others = on_all_threads(product, kernels)
    assert_right(first, product)
    assert all(torch.equal(other, first) for other in others)
    alone = [product.rows(slice(row, row + 1)).compute(kernels) for row in range(rows)]
    assert torch.equal(torch.cat(alone), first)


def test_numbers_of_threads_that_there_are_not(kernels: Kernels) -> None:
    with pytest.raises(RuntimeError, match="no such number of threads: -2"):
        kernels.use_threads(-2)
