"""The block types of GGUF: how a row's bytes become whole numbers and their steps.

A row is cut into blocks, of 32 numbers (Q4_0 to Q8_0) or of 256 (the K types), each with steps of
its own in half precision. The K types give 32 (Q4_K, Q5_K) or 16 (Q6_K) numbers a step of six or
eight bits, which is multiplied by the block's.
Source: the structs `block_*` and the functions `dequantize_row_*` of ggml (ggml-common.h,
ggml-quants.c).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

import torch
from torch import Tensor

from millstream.model.stored.gguf_file import GgufFile
from millstream.model.stored.weight import StoredWeight


def _cut(data: Tensor, size: int) -> Tensor:
    """[..., n] -> [..., n / size, size]."""
    return data.reshape(*data.shape[:-1], -1, size)


def _halves(blocks: Tensor, start: int) -> Tensor:
    """A half-precision number of each block [..., bytes] -> float32 [...]."""
    return blocks[..., start : start + 2].contiguous().view(torch.float16).float().squeeze(-1)


def _nibbles(data: Tensor) -> Tensor:
    """[..., n] -> uint8 [..., 2 n]: all low halves of the bytes, then all high ones."""
    return torch.cat((data & 15, data >> 4), dim=-1)


def _signed(codes: Tensor, middle: int) -> Tensor:
    """Numbers up to 127 that count from 0 (uint8) -> numbers around `middle` (int8), in place."""
    return codes.view(torch.int8).sub_(middle)


def _decode_4_0(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 18)
    numbers = _signed(_nibbles(blocks[..., 2:]), 8)
    return StoredWeight(numbers.flatten(1), _halves(blocks, 0), None, 4)


def _decode_4_1(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 20)
    numbers = _signed(_nibbles(blocks[..., 4:]), 8)
    steps = _halves(blocks, 0)
    return StoredWeight(numbers.flatten(1), steps, _halves(blocks, 2) + 8 * steps, 4)


def _decode_5_0(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 22)
    numbers = _signed(_fives(blocks[..., 2:6], _nibbles(blocks[..., 6:])), 16)
    return StoredWeight(numbers.flatten(1), _halves(blocks, 0), None, 8)


def _decode_5_1(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 24)
    numbers = _signed(_fives(blocks[..., 4:8], _nibbles(blocks[..., 8:])), 0)
    return StoredWeight(numbers.flatten(1), _halves(blocks, 0), _halves(blocks, 2), 8)


def _fives(tops: Tensor, low: Tensor) -> Tensor:
    """tops [..., 4]: the fifth bits of 32 numbers; low [..., 32] the others -> uint8 [..., 32]."""
    places = torch.arange(8, dtype=torch.uint8)
    top = (tops.unsqueeze(-1) >> places & 1).flatten(-2)
    return low | top << 4


def _decode_8_0(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 34)
    numbers = blocks[..., 2:].contiguous().view(torch.int8)
    return StoredWeight(numbers.flatten(1), _halves(blocks, 0), None, 8)


def _decode_4_k(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 144)
    steps, least = _steps_of_k(blocks)
    # 32 bytes have 32 numbers in their low halves and the next 32 in their high ones
    numbers = _signed(_nibbles(_cut(blocks[..., 16:], 32)), 8)
    return StoredWeight(numbers.flatten(1), steps, 8 * steps - least, 4)


def _decode_5_k(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 176)
    steps, least = _steps_of_k(blocks)
    low = _cut(_nibbles(_cut(blocks[..., 48:], 32)), 32).flatten(-3, -2)
    # bit g of byte i is the top of number i of group g
    places = torch.arange(8, dtype=torch.uint8).unsqueeze(-1)
    top = blocks[..., 16:48].unsqueeze(-2) >> places & 1
    numbers = _signed(low | top << 4, 0)
    return StoredWeight(numbers.flatten(1), steps, -least, 8)


def _steps_of_k(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks [n, blocks, bytes] of Q4_K or Q5_K -> steps and what is subtracted, [n, groups].

    Twelve bytes hold eight steps and eight minimums of six bits: of the first four groups one each
    in the low bits of the first eight bytes, of the others four bits in the last four bytes, and
    two in the top bits of the first eight.
    """
    packed = blocks[..., 4:16]
    first, second, last = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    steps = torch.cat((first & 63, last & 15 | first >> 6 << 4), dim=-1)
    least = torch.cat((second & 63, last >> 4 | second >> 6 << 4), dim=-1)
    by_step, by_least = _halves(blocks, 0).unsqueeze(-1), _halves(blocks, 2).unsqueeze(-1)
    return (by_step * steps).flatten(1), (by_least * least).flatten(1)


def _decode_6_k(rows: Tensor) -> StoredWeight:
    blocks = _cut(rows, 210)
    low = _cut(blocks[..., :128], 64)  # of 128 numbers each
    top = _cut(blocks[..., 128:192], 32).unsqueeze(-2)
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).unsqueeze(-1)
    tops = (top >> places & 3).flatten(-2)
    numbers = _signed(_nibbles(low) | tops << 4, 32)
    scales = blocks[..., 192:208].contiguous().view(torch.int8)
    steps = _halves(blocks, 208).unsqueeze(-1) * scales
    return StoredWeight(numbers.flatten(1), steps.flatten(1), None, 8)


DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of tensors that are plain numbers."""

DECODERS: dict[str, Callable[[Tensor], StoredWeight]] = {
    "Q4_0": _decode_4_0,
    "Q4_1": _decode_4_1,
    "Q5_0": _decode_5_0,
    "Q5_1": _decode_5_1,
    "Q8_0": _decode_8_0,
    "Q4_K": _decode_4_k,
    "Q5_K": _decode_5_k,
    "Q6_K": _decode_6_k,
}
"""Types of tensors in blocks: what rows of bytes [n, bytes] (uint8) mean."""


def mapped_rows(file: GgufFile) -> dict[str, Tensor]:
    """The bytes of all tensors, uint8 [..., bytes of a row], as they lie in the mapped file."""
    with file.path.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    return {
        name: torch.frombuffer(
            mapped, dtype=torch.uint8, count=about.num_bytes, offset=about.start
        ).view(*about.shape[:-1], -1)
        for name, about in file.tensors.items()
    }
