"""The memory of a CUDA device: what takes it while an engine is made ready, and what is left.

The driver is asked, because it knows what torch does not: what captured graphs take, the code of
kernels, and other processes.
"""

from __future__ import annotations

import gc
import logging

import torch

log = logging.getLogger(__name__)

_RESERVED_SHARE = 0.02
_LEAST_RESERVE = 2**30


def reserve_bytes(total: int) -> int:
    """What is to stay free of `total` bytes: for kernels that are loaded later, memory that torch's
    allocator cannot put together, and what was measured too low."""
    return max(int(total * _RESERVED_SHARE), _LEAST_RESERVE)


class DeviceMemory:
    """The memory of one device, and by what it was taken so far. Mutated by `note()`.

    total_bytes: free or not. reserve: what is to stay free.
    """

    def __init__(self, device: torch.device) -> None:
        """Takes what is allocated by now for weights, and all else for what was there before."""
        self._device = device
        self.release_unused()
        self.total_bytes = self._total_bytes()
        self.reserve = reserve_bytes(self.total_bytes)
        self._free = self.free_bytes()
        weights = self._allocated_bytes()
        others = self.total_bytes - self._free - weights
        self._parts = {"weights": weights, "CUDA and other processes": others}

    @classmethod
    def of(cls, device: torch.device) -> DeviceMemory | None:
        """The memory of a CUDA device; None for the CPU, whose memory others share."""
        return cls(device) if device.type == "cuda" else None

    def free_bytes(self) -> int:
        """What the driver says is free. What torch's allocator keeps for itself is not."""
        torch.cuda.synchronize(self._device)
        return int(torch.cuda.mem_get_info(self._device)[0])

    def release_unused(self) -> None:
        """Gives back to the driver what nothing refers to any more."""
        gc.collect()
        torch.cuda.empty_cache()

    def note(self, what: str) -> None:
        """All that was taken since the last note is for `what`."""
        free = self.free_bytes()
        self._parts[what] = self._parts.get(what, 0) + self._free - free
        self._free = free

    def tell(self) -> None:
        """Logs what was noted, and warns where too little of the reserve is left."""
        parts = "".join(f"{size / 2**30:.2f} {what}, " for what, size in self._parts.items())
        total, left = self.total_bytes / 2**30, self._free / 2**30
        log.info("memory of the device in GiB: %.2f in all, %s%.2f free", total, parts, left)
        missing = self.reserve - self._free
        if missing > self.reserve / 2:
            smaller = max(self._parts.get("caches", 0) - missing, 0) / 2**20
            log.warning(
                "%.2f GiB of the device's memory are left, and %.2f were to be; if steps fail for "
                "lack of memory, start with --kv-cache-memory %.0fMiB or less",
                left,
                self.reserve / 2**30,
                smaller,
            )

    def _total_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self._device)[1])

    def _allocated_bytes(self) -> int:
        return torch.cuda.memory_allocated(self._device)
