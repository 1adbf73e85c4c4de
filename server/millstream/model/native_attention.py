"""Decode attention by the compiled kernel, which reads the cache's blocks where they lie."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.batch import DecodeGroup, Packer, PagedBatch, PromptPart
from millstream.model.kv_cache import KVCache
from millstream.model.native.kernels import Kernels


class NativeBatch(PagedBatch):
    """A step whose decode rows are attended in one call per layer, whatever their lengths."""

    def __init__(
        self,
        cache: KVCache,
        slots: Tensor,
        decodes: list[DecodeGroup],
        prompts: list[PromptPart],
        *,
        kernels: Kernels,
    ) -> None:
        super().__init__(cache, slots, decodes, prompts)
        self._attention = kernels.paged_attention_decode

    def _attend_decode(
        self, layer: int, query: Tensor, group: DecodeGroup, options: LayerOptions
    ) -> Tensor:
        return self._attention(
            query,
            self._cache.keys[layer],
            self._cache.values[layer],
            group.blocks,
            group.positions,
            scale=options.scale,
            window=options.window,
            softcap=options.softcap,
            sinks=options.sinks,
        )


class NativePacker(Packer):
    """Packs steps for the kernel: it skips what a row does not see, so all rows are one group."""

    def __init__(self, cache: KVCache, kernels: Kernels) -> None:
        super().__init__(cache, torch.device("cpu"))
        self._kernels = kernels

    def _batch(
        self, slots: Tensor, decodes: list[DecodeGroup], prompts: list[PromptPart]
    ) -> PagedBatch:
        return NativeBatch(self._cache, slots, decodes, prompts, kernels=self._kernels)

    def _group_of(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.zeros_like(starts)
