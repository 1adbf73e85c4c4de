"""Which threads compute a step on the CPU: torch's or the kernels', never both.

A thread that has no work spins for a while before it sleeps; torch's OpenMP threads do so for
milliseconds. Idle threads that spin take cores from busy ones, so two pools of threads in one step
would slow each other down. Where kernels compute all large products, torch does its small
operations on the calling thread alone. Where torch computes products, or where the engine is a
guest in another program, kernels run on torch's threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from millstream.model.cpu.kernels import Kernels

_LARGE = 2**22  # numbers: an operation on so many is worth waking torch's threads


class Threads:
    """The threads of one engine. Settings last as long as a `with` block: others use torch, too."""

    def __init__(self, kernels: Kernels | None, *, is_alone: bool) -> None:
        """is_alone: whether the kernels compute all large products."""
        self._kernels = kernels
        self._is_alone = is_alone

    @contextmanager
    def forward(self) -> Iterator[None]:
        """The threads for a model's forward pass."""
        if self._kernels is None:
            yield
            return
        count = torch.get_num_threads()
        self._kernels.use_threads(count if self._is_alone else 0)
        if self._is_alone:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(count)
            self._kernels.use_threads(-1)

    @contextmanager
    def for_small_operations(self, size: int) -> Iterator[None]:
        """The threads for torch's own operations on `size` numbers."""
        count = torch.get_num_threads()
        if self._is_alone and size < _LARGE:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(count)
