"""What a step sends to the device, gathered in pinned memory and sent as one copy.

Rules:
1. `put()` gives the tensor on the device at once; it holds its values once `flush()` has queued the
   copy, so nothing may read it before.
2. The host's memory is written again only after the device has read it.
3. The device's memory never moves, and is overwritten by the next step's copy: in the queue of the
   device that is after everything this step does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16  # bytes


class Staging:
    """Mutated by the packer of its device only."""

    def __init__(self, device: torch.device, num_bytes: int) -> None:
        """num_bytes: of the largest step."""
        size = -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        self._is_cuda = device.type == "cuda"
        self._host = torch.empty(size, dtype=torch.uint8, pin_memory=self._is_cuda)
        self._device = torch.empty(size, dtype=torch.uint8, device=device)
        self._bytes = self._host.numpy()
        self._copied: torch.cuda.Event | None = None
        if self._is_cuda:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._end = 0
        self.num_copies = 0

    def begin(self) -> None:
        """Starts a step."""
        if self._copied is not None:
            self._copied.synchronize()  # over long ago, unless a step failed half-way
        self._end = 0

    def put(self, array: NDArray[np.int32] | NDArray[np.int64]) -> Tensor:
        """The array as a tensor on the device; see rule 1."""
        first, end = self._end, self._end + array.nbytes
        assert end <= len(self._bytes), "the step is larger than the largest"
        self._bytes[first:end] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self._end = -(-end // _ALIGNMENT) * _ALIGNMENT
        dtype = torch.int32 if array.dtype == np.int32 else torch.int64
        return self._device[first:end].view(dtype).view(array.shape)

    def flush(self) -> None:
        """Queues the one copy of the step."""
        self._device[: self._end].copy_(self._host[: self._end], non_blocking=True)
        self.num_copies += 1
        if self._copied is not None:
            self._copied.record()
