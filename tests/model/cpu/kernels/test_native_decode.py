"""The compiled kernel for decode attention: equal to plain torch, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from millstream.model.cpu.kernels import Kernels, plain
from tests.model.native_cases import DTYPES, Case, make_case


def assert_attends(case: Case, kernels: Kernels, **options: Any) -> None:
    got = case.attend(kernels, **options)
    clean = replace(case, keys=case.keys.nan_to_num(), values=case.values.nan_to_num())
    truth = clean.wide().attend(plain(), **options)
    assert got.dtype == case.query.dtype
    tolerance = 2e-5 if got.dtype == torch.float32 else 8e-3
    torch.testing.assert_close(got.float(), truth, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(9, 3), (16, 8), (8, 1), (4, 4), (7, 1)])
@pytest.mark.parametrize("dims", [(64, 64), (80, 80), (128, 128), (256, 256), (64, 32), (20, 12)])
def test_attention_shapes(
    kernels: Kernels, dtype: torch.dtype, heads: tuple[int, int], dims: tuple[int, int]
) -> None:
    assert_attends(make_case([0, 40, 300], heads=heads, dims=dims, dtype=dtype), kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [8, 16, 24, 32])
def test_attention_contexts(kernels: Kernels, dtype: torch.dtype, block_size: int) -> None:
    positions = [0, 1, 15, 16, 63, 254, 255, 256, 257, 511, 512, 1000, 2999]
    assert_attends(make_case(positions, block_size=block_size, dtype=dtype), kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 17, 256, 300, 5000])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_attention_windows(
    kernels: Kernels, dtype: torch.dtype, window: int, softcap: float | None
) -> None:
    case = make_case([0, 20, 299, 1000], dtype=dtype)
    assert_attends(case, kernels, window=window, softcap=softcap)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_sinks(kernels: Kernels, dtype: torch.dtype) -> None:
    case = make_case([3, 700], dtype=dtype)
    sinks = torch.linspace(-3, 12, 9).to(dtype)
    assert_attends(case, kernels, sinks=sinks)
    assert_attends(case, kernels, sinks=sinks, softcap=3.0, window=100, scale=0.5)


def test_attention_with_large_scores(kernels: Kernels) -> None:
    assert_attends(make_case([900]), kernels, scale=20.0)


def test_attention_takes_int32_tables_and_views(kernels: Kernels) -> None:
    case = make_case([100, 500])
    narrow = replace(
        case,
        tables=case.tables.int(),
        positions=case.positions.int(),
        query=case.query.transpose(0, 1).contiguous().transpose(0, 1),
    )
    assert torch.equal(narrow.attend(kernels), case.attend(kernels))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_neighbours(kernels: Kernels, dtype: torch.dtype) -> None:
    """Contract 2, bit for bit: alone, in any order, with any padding, on any number of threads."""
    case = make_case([5, 130, 255, 256, 700, 1500], dtype=dtype)
    together = case.attend(kernels)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.equal(case.rows(order).attend(kernels), together[order])
    for row in range(6):
        alone = case.rows(torch.tensor([row]))
        needed = int(alone.positions) // 16 + 1
        short = replace(alone, tables=alone.tables[:, :needed])
        assert torch.equal(short.attend(kernels)[0], together[row])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(case.attend(kernels), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": torch.tensor([[99]])}, "does not exist"),
        ({"tables": torch.tensor([[-1]])}, "does not exist"),
        ({"positions": torch.tensor([16])}, "beyond its table"),
        ({"positions": torch.tensor([-1])}, "beyond its table"),
        ({"positions": torch.tensor([0, 0])}, "per row"),
        ({"query": torch.zeros(1, 9, 64).half()}, "dtype"),
        ({"query": torch.zeros(1, 8, 64)}, "multiple"),
        ({"query": torch.zeros(1, 9, 32)}, "do not fit"),
    ],
)
def test_attention_refuses(kernels: Kernels, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        replace(make_case([10]), **change).attend(kernels)


def test_attention_refuses_options(kernels: Kernels) -> None:
    with pytest.raises(RuntimeError, match="sink"):
        make_case([10]).attend(kernels, sinks=torch.zeros(8))
    with pytest.raises(RuntimeError, match="window"):
        make_case([10]).attend(kernels, window=0)
