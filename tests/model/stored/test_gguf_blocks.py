"""Blocks of GGUF mean what the package gguf says they mean."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from millstream.model.stored.gguf_blocks import DECODERS, DTYPES
from millstream.model.stored.gguf_file import KINDS

QUANTIZED = {kind.name: kind for kind in KINDS.values() if kind.name in DECODERS}


def random_rows(name: str, *, rows: int = 5, blocks: int = 3) -> torch.Tensor:
    """Rows of random bytes, whose steps in half precision are usual numbers."""
    kind = QUANTIZED[name]
    source = np.random.default_rng(1)
    data = source.integers(0, 256, (rows, blocks, kind.num_bytes), dtype=np.uint8)
    places = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q6_K": (208,)}
    for place in places.get(name, (0,)):
        steps = source.normal(0, 0.1, (rows, blocks, 1)).astype(np.float16)
        data[..., place : place + 2] = steps.view(np.uint8)
    return torch.from_numpy(data.reshape(rows, -1))


@pytest.mark.parametrize("name", QUANTIZED)
def test_blocks_mean_what_the_package_says(name: str) -> None:
    rows = random_rows(name)
    weight = DECODERS[name](rows)
    wanted = gguf.dequantize(rows.numpy(), gguf.GGMLQuantizationType[name])
    assert weight.numbers.dtype == torch.int8
    low, high = (-8, 7) if weight.bits == 4 else (-128, 127)
    assert low <= int(weight.numbers.min()) <= int(weight.numbers.max()) <= high
    torch.testing.assert_close(
        weight.dequantized(torch.float32), torch.from_numpy(wanted), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_sizes_are_those_of_the_package(kind: object) -> None:
    code = gguf.GGMLQuantizationType[kind.name]  # type: ignore[attr-defined]
    assert gguf.GGML_QUANT_SIZES[code] == (kind.numbers, kind.num_bytes)  # type: ignore[attr-defined]
    assert KINDS[code.value] is kind


def test_every_type_is_read() -> None:
    assert {kind.name for kind in KINDS.values()} == DECODERS.keys() | DTYPES.keys()
