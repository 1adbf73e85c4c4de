"""What a step sends to the device, gathered in pinned memory and sent as one copy.

Rules:
1. `put()` gives the tensor on the device at once; it holds its values once `flush()` has queued the
   copy, so nothing may read it before.
2. The host's memory is written again only after the device has read it.
3. The device's memory never moves, and is overwritten by the next step's copy: in the queue of the
   device that is after everything this step does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import Layout
from millstream.model.states.state_cache import StateCache

_ALIGNMENT = 16  # bytes


class Staging:
    """The Uploader of a CUDA device. Mutated by its own methods only.

    num_copies: how many were queued, one for each step.
    """

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

    @classmethod
    def for_steps(
        cls, device: torch.device, *, max_tokens: int, max_rows: int, max_blocks: int
    ) -> Staging:
        """Large enough for steps of so many tokens and sequences, and the blocks of the longest."""
        # Four numbers a token, twelve a sequence with its states and its draw. Block tables
        # twice: a captured step has some of decode rows for nobody beside those of its prompts.
        numbers = 4 * max_tokens + 12 * max_rows + 64
        return cls(device, 8 * numbers + 4 * 2 * max_rows * max_blocks)

    @property
    def num_bytes(self) -> int:
        """Memory for a step, on the host and on the device."""
        return len(self._bytes)

    def begin(self) -> None:
        """Starts a step. Waits until the device has read the one before."""
        if self._copied is not None:
            self._copied.synchronize()  # over long ago, unless a step failed half-way
        self._end = 0

    def put(self, array: NDArray[Any]) -> Tensor:
        """The array as a tensor of its shape on the device; see rule 1."""
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


def stage_decodes(
    layout: Layout,
    count: int,
    *,
    cache: KVCache,
    staging: Staging,
    sources: NDArray[np.int64],
    states: StateCache | None = None,
    words: NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sends a step of n decode rows, with rows for nobody up to `count` of them.

    sources: [n], a number for each row that is sent with it. words: [k, count], more of them.
    Returns token ids, positions, slots and sources [4, count] int64, with `states` also the state
    slots that are read and written [6, count], then `words`; and block tables [count, m] int32.
    Rows for nobody have the source -1, write to the
    spare block of `cache` and read its padding block, and use the spare slot of `states`.
    """
    assert layout.decodes is not None
    size = len(layout.token_ids)
    height = 4 if states is None else 6
    inputs = np.zeros((height + (0 if words is None else len(words)), count), np.int64)
    inputs[:4, :size] = layout.token_ids, layout.positions, layout.slots, sources
    inputs[3, size:] = -1
    if states is not None and layout.states is not None:
        inputs[4:6, :size] = layout.states.slots
        inputs[4:6, size:] = states.spare_slot
    if words is not None:
        inputs[height:] = words
    inputs[2, size:] = cache.spare_block * cache.block_size
    width = layout.decodes.tables.shape[1]
    tables = np.full((count, width), cache.padding_block, np.int32)
    tables[:size] = layout.decodes.tables
    staging.begin()
    sent = staging.put(inputs), staging.put(tables)
    staging.flush()
    return sent
