"""How large the figures are made, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Roof:
    """Measured on the device: bytes read and operations of matrix products, both per second."""

    read: float = float("nan")
    operations: float = float("nan")


@dataclass(frozen=True, slots=True)
class Size:
    """How large the figures are made. dtype: of weights and cache."""

    device: torch.device
    dtype: torch.dtype
    shapes: tuple[str, ...]
    rows: tuple[int, ...]
    context: int
    prompt: int
    copied_bytes: int
    matrix: int
    rounds: int

    @property
    def max_context(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.context + 64, self.prompt)
