"""How attention over the paged cache is computed: by the first backend that can, for every layer.

transformers' modules call `attend()` of a step's PagedAttention in each layer. It stores the new
keys and values and asks a backend for the rest, so that a backend sees nothing but queries, the
layer's part of the cache and the span of rows to compute.

Rule: a backend reads keys and values from the cache only, those of the step included. What is
computed for a row therefore does not depend on how its prompt was cut into chunks, apart from
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.step import PagedStep, Span
from millstream.model.states.state_step import StateStep


class AttentionBackend(Protocol):
    """One way to attend to paged keys.

    name: what the engine reports. is_capturable: it computes attention with any options, and
    nothing that it does depends on numbers of the host, so that a CUDA graph may hold its calls.
    """

    name: str
    is_capturable: bool

    def handles(self, options: LayerOptions) -> bool:
        """Whether it computes attention with these options."""
        ...

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """One row of each sequence: query [n, heads, d] gives [n, heads, dv].

        keys [blocks, block_size, kv_heads, d] and values [blocks, block_size, kv_heads, dv]: the
        layer's cache. Tensors share one floating dtype.
        """
        ...

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The rows of prompt chunks, chunk after chunk: query [T, heads, d] gives [T, heads, dv].

        A row sees the keys of its own sequence up to its own position. keys, values: see decode().
        """
        ...


class PagedAttention:
    """The attention of one step, for one forward call: the AttentionBatch that models are given."""

    def __init__(
        self,
        step: PagedStep,
        cache: KVCache,
        backends: Sequence[AttentionBackend],
        states: StateStep | None = None,
    ) -> None:
        """backends: best first; the last one handles every option."""
        self.step = step
        self.cache = cache
        self.states = states
        self._backends = backends

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        """Stores the new keys and values, then attends.

        query [T, heads, d], key [T, kv_heads, d], value [T, kv_heads, dv] -> [T, heads, dv].
        """
        self.cache.write(layer, self.step.slots, key, value)
        return self.attend_cached(layer, query, options)

    def attend_cached(self, layer: int, query: Tensor, options: LayerOptions) -> Tensor:
        """Attends once the new keys and values are in the cache: query [T, heads, d], turned if
        the model has rotary positions -> [T, heads, dv]."""
        backend = next(backend for backend in self._backends if backend.handles(options))
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        decodes, prompts = self.step.decodes, self.step.prompts
        if prompts is None:
            assert decodes is not None, "a step has rows"
            return backend.decode(query, keys, values, decodes, options)
        if decodes is None:
            return backend.prefill(query, keys, values, prompts, options)
        count = len(decodes.starts)
        decoded = backend.decode(query[:count], keys, values, decodes, options)
        return torch.cat([decoded, backend.prefill(query[count:], keys, values, prompts, options)])
