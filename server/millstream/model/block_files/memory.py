"""A block in memory of the host, for threads that leave torch alone: it would start as many threads
as a step has."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_EXPONENTS = {
    torch.float16: (np.uint16, 0x7C00),
    torch.bfloat16: (np.uint16, 0x7F80),
    torch.float32: (np.uint32, 0x7F80_0000),
    torch.float64: (np.uint64, 0x7FF0_0000_0000_0000),
}
"""For each dtype an integer of its width, and the bits that are all set in NaN and infinity."""


def is_finite(row: Tensor, dtype: torch.dtype) -> bool:
    """Whether memory of the host, [n] int64, holds only finite numbers of this dtype."""
    width, mask = _EXPONENTS[dtype]
    numbers = row.numpy().view(width)
    return not bool(((numbers & width(mask)) == width(mask)).any())


def memory_of(row: Tensor) -> memoryview:
    """The bytes of a tensor of the host, [n] int64; not a copy."""
    return memoryview(row.numpy()).cast("B")  # type: ignore[arg-type]
