"""Decode attention by bfloat16 instructions: tiles of 16 tokens, wherever blocks begin and end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels
from tests.model.cpu.kernels.test_native_decode import assert_attends
from tests.model.native_cases import Case, make_case

CONTEXTS = [0, 14, 15, 16, 17, 31, 254, 255, 256, 257, 599]  # positions of last tokens


def bfloat16_case(
    *, heads: tuple[int, int] = (4, 2), dims: tuple[int, int] = (64, 64), block_size: int = 16
) -> Case:
    return make_case(CONTEXTS, heads=heads, dims=dims, block_size=block_size, dtype=torch.bfloat16)


@pytest.mark.parametrize("block_size", [1, 5, 8, 12, 16, 20, 24, 40, 48, 64, 600])
def test_block_sizes(kernels: Kernels, block_size: int) -> None:
    case = bfloat16_case(block_size=block_size)
    assert_attends(case, kernels)
    for window in (1, 15, 16, 17, 100, 257):
        assert_attends(case, kernels, window=window)


@pytest.mark.parametrize("dims", [(64, 64), (96, 96), (128, 128), (32, 32), (80, 80)])
def test_dims(kernels: Kernels, dims: tuple[int, int]) -> None:
    for block_size in (16, 20):
        assert_attends(bfloat16_case(dims=dims, block_size=block_size), kernels)
        assert_attends(bfloat16_case(dims=(dims[0], 32), block_size=block_size), kernels)
        assert_attends(bfloat16_case(dims=(64, dims[1]), block_size=block_size), kernels)
        assert_attends(bfloat16_case(dims=(192, 160), block_size=block_size), kernels)


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_groups(kernels: Kernels, group: int, kv_heads: int) -> None:
    for dims in ((64, 64), (128, 96)):
        case = bfloat16_case(heads=(group * kv_heads, kv_heads), dims=dims, block_size=24)
        assert_attends(case, kernels, softcap=20.0, window=300)


def sequence(case: Case, row: int) -> tuple[Tensor, Tensor]:
    """Its keys and values [tokens, kv_heads, dim]."""
    count = int(case.positions[row]) + 1
    return (
        case.keys[case.tables[row]].flatten(0, 1)[:count],
        case.values[case.tables[row]].flatten(0, 1)[:count],
    )


def in_blocks(case: Case, block_size: int) -> Case:
    """The same sequences in blocks of another size."""
    counts = [int(position) // block_size + 1 for position in case.positions]
    size = (sum(counts) + 1, block_size, *case.keys.shape[2:])
    keys = torch.full(size, torch.nan).bfloat16()
    values = torch.full((*size[:3], case.values.shape[3]), torch.nan).bfloat16()
    tables = torch.zeros(len(counts), max(counts), dtype=torch.int64)
    keys[0] = values[0] = torch.nan
    first = 1
    for row, count in enumerate(counts):
        blocks = torch.arange(first, first + count).flip(0)
        first, tables[row, :count] = first + count, blocks
        for cache, found in zip((keys, values), sequence(case, row), strict=True):
            room = cache[blocks].flatten(0, 1)
            room[: len(found)] = found
            cache[blocks] = room.view(count, *cache.shape[1:])
    return replace(case, keys=keys, values=values, tables=tables)


@pytest.mark.parametrize("window", [None, 1, 33, 300])
def test_where_tokens_lie_does_not_matter(kernels: Kernels, window: int | None) -> None:
    """Bit for bit: tiles that have to be copied, and those that lie as they are."""
    case = bfloat16_case(heads=(6, 2), dims=(64, 64), block_size=16)
    expected = case.attend(kernels, window=window)
    for block_size in (1, 7, 8, 24, 32, 100):
        found = in_blocks(case, block_size).attend(kernels, window=window)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("block_size", [16, 24, 64])
@pytest.mark.parametrize("stale", [0.0, 3e38, -3e38, 1e-40, math.nan])
def test_what_lies_behind_the_last_token_does_not_matter(
    kernels: Kernels, stale: float, block_size: int
) -> None:
    """Bit for bit; so with what lies before a window, in its first block."""
    case = bfloat16_case(block_size=block_size)
    for window in (None, 10, 250):
        expected = case.attend(kernels, window=window)
        changed = replace(case, keys=case.keys.clone(), values=case.values.clone())
        for row, position in enumerate(case.positions.tolist()):
            block, used = int(case.tables[row, position // block_size]), position % block_size + 1
            for cache in (changed.keys, changed.values):
                cache[block, used:] = stale
                if window is not None and position >= window:
                    first = position - window + 1
                    before = case.tables[row, first // block_size]
                    cache[before, : first % block_size] = stale
        assert torch.equal(changed.attend(kernels, window=window), expected)


def test_what_is_not_finite_stays_so_and_stays_alone(kernels: Kernels) -> None:
    """Contract 4: a key or value that is not finite shows in its sequence, and only there."""
    case = bfloat16_case(heads=(4, 1))
    expected = case.attend(kernels)
    others = [row for row in range(len(CONTEXTS)) if row != 9]
    for name, number in (("keys", torch.nan), ("values", torch.nan), ("values", torch.inf)):
        cache = getattr(case, name).clone()
        cache[case.tables[9, 7], 3, 0] = number
        found = replace(case, **{name: cache}).attend(kernels)
        assert torch.equal(found[others], expected[others])
        assert not found[9].isfinite().any()


def test_threads_do_not_matter(kernels: Kernels) -> None:
    case = bfloat16_case(heads=(8, 2), dims=(128, 128), block_size=24)
    expected = case.attend(kernels)
    threads = torch.get_num_threads()
    try:
        for count, whose in ((1, -1), (2, 0), (3, -1), (4, 0), (7, -1), (1, 5)):
            torch.set_num_threads(count)
            kernels.use_threads(whose)
            assert torch.equal(case.attend(kernels), expected)
    finally:
        torch.set_num_threads(threads)
        kernels.use_threads(-1)
