"""Whole blocks of the KV cache as bytes on the host, out of it and back into it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from millstream.model.paging.kv_cache import KVCache
from millstream.model.transfers import HostCopy, upload


class BlockCopies:
    """A block is the bytes of its keys and values, layer after layer: `block_bytes` of them.

    layout: what they are bytes of: for each layer, its index, the shape of a block's keys and that
    of its values.
    """

    def __init__(self, cache: KVCache) -> None:
        layers = sorted(cache.keys)
        tensors = [kind[layer] for layer in layers for kind in (cache.keys, cache.values)]
        # Intentional: words of 8 bytes, which torch gathers faster than single ones. Every block
        # size is a multiple of 8 tokens, so they fit.
        self._parts = [each.flatten(1).view(torch.int64) for each in tensors]  # [blocks, words]
        self._sizes = [part.shape[1] for part in self._parts]
        self.dtype, self.device = tensors[0].dtype, tensors[0].device
        self.block_bytes = 8 * sum(self._sizes)
        self.layout = [
            (layer, *cache.keys[layer].shape[1:], *cache.values[layer].shape[1:])
            for layer in layers
        ]

    def read(self, blocks: Sequence[int]) -> HostCopy:
        """Blocks [n, block_bytes / 8] int64 as they are now, on their way to the host."""
        index = self._index(blocks)
        return HostCopy(torch.cat([each.index_select(0, index) for each in self._parts], dim=1))

    def write(self, blocks: Sequence[int], contents: Tensor) -> None:
        """Puts contents [n, block_bytes / 8] int64 of the host into these n blocks."""
        index = self._index(blocks)
        sent = torch.split(upload(contents, self.device), self._sizes, dim=1)
        for part, rows in zip(self._parts, sent, strict=True):
            part.index_copy_(0, index, rows)

    def _index(self, blocks: Sequence[int]) -> Tensor:
        return upload(torch.tensor(list(blocks), dtype=torch.int64), self.device)
