"""Samples of attention on a device, for which a backend is compared with plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.model import reference
from millstream.model.attention import LayerOptions
from millstream.model.cuda.prompt_staging import fill_up
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.paging.step import HostSpan, Span
from millstream.model.tolerance import ATTENTION_BACKENDS

_CONTEXT = 330  # tokens of a trial
_FILLED = 96  # rows of a captured one


@dataclass(frozen=True, slots=True)
class BackendTrial:
    """Samples of a layer on a device, for which backends are compared with plain torch."""

    shape: LayerShape
    num_heads: int
    block_size: int
    dtype: torch.dtype
    device: torch.device

    def require_right(self, backend: AttentionBackend) -> None:
        """Raises ArithmeticError where the backend differs."""
        for what, actual, expected in self.samples(backend):
            error = (actual.float() - expected.float()).abs().max().item()
            if not error <= ATTENTION_BACKENDS[self.dtype]:
                raise ArithmeticError(
                    f"{what} is wrong by {error:.1e} for {self.shape} in {self.dtype}"
                )

    def samples(self, backend: AttentionBackend) -> Iterator[tuple[str, Tensor, Tensor]]:
        """What was computed, its results by the backend and by plain torch [T, heads, dv] each."""
        generator = torch.Generator().manual_seed(0)
        width, kv_heads = -(-_CONTEXT // self.block_size), self.shape.kv_heads
        keys, values = (
            self.random(generator, 2 * width, self.block_size, kv_heads, dim)
            for dim in (self.shape.key_dim, self.shape.value_dim)
        )
        order = torch.randperm(2 * width, generator=generator).view(2, width)
        tables = order.numpy().astype(np.int32)
        sinks = torch.randn(self.num_heads, generator=generator).to(self.device)

        def put(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        for options in filter(backend.handles, _layer_options(sinks)):
            for what, lengths in (("decode", (1, 1)), ("prefill", (3, 80))):
                starts = np.array([7, _CONTEXT - lengths[1]])
                span = HostSpan.of_chunks(tables, starts, np.array(lengths)).put(put)
                query = self.random(generator, sum(lengths), self.num_heads, self.shape.key_dim)
                actual = getattr(backend, what)(query, keys, values, span, options)
                yield what, actual, _in_plain_torch(query, keys, values, span, options)
            if backend.is_capturable:
                filled = fill_up(span.on_host, tokens=_FILLED, chunks=4).put(put)
                query = self.random(generator, _FILLED, self.num_heads, self.shape.key_dim)
                actual = backend.prefill(query, keys, values, replace(filled, host=None), options)
                rows = span.on_host.firsts[-1]
                expected = _in_plain_torch(query[:rows], keys, values, span, options)
                nothing = expected.new_zeros(_FILLED - rows, *expected.shape[1:])
                yield "prefill of a captured step", actual, torch.cat([expected, nothing])

    def random(self, generator: torch.Generator, *size: int) -> Tensor:
        """Numbers of about 1 on the device, of this size."""
        return torch.randn(size, generator=generator).to(self.device, self.dtype)


def _layer_options(sinks: Tensor) -> tuple[LayerOptions, ...]:
    """Options of every kind that models ask for."""
    return (
        LayerOptions(0.1),
        LayerOptions(0.1, window=20),
        LayerOptions(0.1, softcap=5.0, window=300),
        LayerOptions(0.1, sinks=sinks),
        LayerOptions(0.1, chunk=50),
    )


def _in_plain_torch(
    query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
) -> Tensor:
    return reference.paged_attention_prefill(
        query,
        keys,
        values,
        span.tables,
        span.starts,
        span.lengths,
        scale=options.scale,
        window=options.window,
        softcap=options.softcap,
        sinks=options.sinks,
        chunk=options.chunk,
    )
