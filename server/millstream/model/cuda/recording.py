"""What captures a computation: CUDA's graphs on a device, stand-ins in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Recording(Protocol):
    """A captured computation. output: what it wrote last; the memory stays the same."""

    output: Tensor

    def replay(self) -> None: ...


Record = Callable[[Callable[[], Tensor]], Recording]
"""Captures what a function computes over memory that stays."""
