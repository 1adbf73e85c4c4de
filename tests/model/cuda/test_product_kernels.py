"""Products with few rows by kernels of our own: what they compute, and how they are cut."""

from __future__ import annotations

import importlib.util

import pytest

from millstream.model.cuda.product_tiles import ROW_COUNTS, candidates, row_count
from tests.model.cuda.triton_scripts import run_script

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

# The interpreter's products of bfloat16 are wrong; float16 is the 16 bit type here.
_SCRIPT = """
import torch
from millstream.model.cuda.product_tiles import ProductTile
from millstream.model.cuda.triton_products import multiply

generator = torch.Generator().manual_seed(0)
tiles = [ProductTile(32, 32, parts, 4, 2) for parts in (1, 2, 3)] + [ProductTile(64, 64, 2, 4, 2)]
for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
    for outputs, inputs, has_bias in ((96, 192, True), (70, 192, False), (40, 100, True)):
        weight = torch.randn(outputs, inputs, generator=generator).to(dtype)
        bias = torch.randn(outputs, generator=generator).to(dtype) if has_bias else None
        for rows in (1, 2, 16, 19):
            x = torch.randn(rows, inputs, generator=generator).to(dtype)
            expected = torch.nn.functional.linear(x.double(), weight.double())
            expected = (expected if bias is None else expected + bias.double()).to(dtype)
            for tile in tiles:
                actual = multiply(x, weight, bias, tile)
                torch.testing.assert_close(actual, expected, rtol=tolerance, atol=16 * tolerance)
                assert torch.equal(actual, multiply(x, weight, bias, tile))
        print("equal", dtype, outputs, inputs)
"""

_COMPILATION = """
from millstream.model.cuda import triton_product_kernels as kernels
from millstream.model.cuda.product_tiles import candidates
from tests.model.cuda.triton_scripts import compile_for_hopper

types = {"rows": "i32", "outputs": "i32", "inputs": "i32", "parts": "i32", "sums": "*fp32"}
aligned = ["x", "weight", "bias", "out", "outputs", "inputs"]
seen = set()
for rows, pad in ((1, 1), (16, 16), (32, 32)):
    for tile in candidates(2048, 2048, rows):
        if (pad, tile.channels, tile.depth) in seen:
            continue
        seen.add((pad, tile.channels, tile.depth))
        compiled = compile_for_hopper(
            kernels.product_tile, types=types, divisible=aligned, options={"num_warps": tile.warps},
            ROWS_PAD=pad, CHANNELS=tile.channels, DEPTH=tile.depth, STAGES=tile.stages,
            IS_EVEN=True, HAS_BIAS=False, OVERLAPS=False,
        )
        assert "cp.async.cg.shared.global" in compiled, "weights are read 16 bytes at a time, ahead"
        print("compiled", tile)
compile_for_hopper(kernels.join_product, types=types, TILE=1024, HAS_BIAS=True, OVERLAPS=False)
print("compiled join")
"""


@needs_triton
def test_kernels_equal_plain_torch() -> None:
    assert run_script(_SCRIPT, interpreted=True).count("equal") == 6


@needs_triton
def test_kernels_are_compiled_for_a_device() -> None:
    assert run_script(_COMPILATION, interpreted=False).count("compiled") == 13


def test_rows_are_counted_up_to_the_next_that_is_timed() -> None:
    assert [row_count(n) for n in (0, 1, 2, 4, 5, 16, 17, 32, 33)] == [
        None, 1, 4, 4, 16, 16, 32, 32, None,
    ]  # fmt: skip


@pytest.mark.parametrize("rows", ROW_COUNTS)
@pytest.mark.parametrize(("outputs", "inputs"), [(128_256, 2048), (2048, 8192), (4096, 4096)])
def test_large_weights_are_cut_so_that_a_device_is_busy(
    outputs: int, inputs: int, rows: int
) -> None:
    found = candidates(outputs, inputs, rows)
    assert 3 < len(found) == len(set(found))
    for tile in found:
        programs = -(-outputs // tile.channels) * tile.parts
        assert programs >= 64
        assert tile.parts == 1 or (programs <= 1024 and inputs / tile.parts >= 2 * tile.depth)
