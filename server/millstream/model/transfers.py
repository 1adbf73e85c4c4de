"""Memory on the device, and small tensors between it and the host, without making the host wait.

Rules:
1. On a CUDA device every copy goes through pinned memory and only joins the queue of the device;
   the host waits in `Download.lists()` and nowhere else. On the CPU nothing is copied.
2. What a step needs from the device comes in one download, however many tensors that are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def blank(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros; on the CPU it takes memory only where it is written."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    # torch.zeros writes every page; numpy's come from calloc, which leaves that to the system.
    raw = np.zeros(math.prod(size) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(size)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A fresh tensor of the host, of any shape and dtype, on `device`."""
    if device.type == "cpu":
        return tensor
    # Plain host memory would make the copy wait for everything the device still has to do.
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopy:
    """A tensor of any device and shape on its way to the host."""

    def __init__(self, tensor: Tensor) -> None:
        self._host = tensor
        self._copied: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def wait(self) -> Tensor:
        """It on the host. Waits for the device; from any thread."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host


class Download:
    """Tensors of one device on their way to the host, as one copy."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._copied: torch.cuda.Event | None = None
        if self._tensors and self._tensors[0].is_cuda:
            self._start()

    def lists(self) -> list[list[Any]]:
        """The tensors as (nested) lists, in their order. Waits for the device."""
        if self._copied is not None:
            self._copied.synchronize()
        return [tensor.tolist() for tensor in self._tensors]

    def _start(self) -> None:
        packed, order = pack_bytes(self._tensors)
        host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        self._tensors = unpack_bytes(host, self._tensors, order)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()


def pack_bytes(tensors: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """All tensors, of any shapes and dtypes, as one of bytes [n] uint8, and the order they lie in:
    wide types first, so that each starts at a multiple of its size."""
    order = sorted(range(len(tensors)), key=lambda index: -tensors[index].dtype.itemsize)
    parts = [tensors[index].contiguous().flatten().view(torch.uint8) for index in order]
    return parts[0] if len(parts) == 1 else torch.cat(parts), order


def unpack_bytes(packed: Tensor, like: Sequence[Tensor], order: Sequence[int]) -> list[Tensor]:
    """Views of `packed` [n] uint8 with the shapes and dtypes of `like`, in its order."""
    found: dict[int, Tensor] = {}
    first = 0
    for index in order:
        part = packed[first : first + like[index].nbytes]
        found[index] = part.view(like[index].dtype).view(like[index].shape)
        first += like[index].nbytes
    return [found[index] for index in range(len(like))]
