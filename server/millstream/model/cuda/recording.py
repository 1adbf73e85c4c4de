"""What captures a computation: CUDA's graphs on a device, stand-ins in tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor


class Recording(Protocol):
    """A captured computation. output: what it wrote last; the memory stays the same. num_bytes:
    what the graph took of the device's free memory."""

    output: Tensor
    num_bytes: int

    def replay(self) -> None: ...


Record = Callable[[Callable[[], Tensor]], Recording]
"""Captures what a function computes over memory that stays."""


@contextmanager
def capturing(graph: torch.cuda.CUDAGraph, **options: Any) -> Iterator[None]:
    """Captures in `graph` what is computed inside, as torch.cuda.graph does with these options.

    Where that fails, torch would leave the stream it captures on as the current one.
    """
    before = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, **options):
            yield
    finally:
        torch.cuda.set_stream(before)
