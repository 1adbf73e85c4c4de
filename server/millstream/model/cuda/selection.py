"""Which attention backends work on this machine.

Rule: a backend is used only after it computed, on this device and with this model's shapes, what
plain torch does. Whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from millstream.model import reference
from millstream.model.attention import LayerOptions
from millstream.model.cuda.backends import TritonBackend, VarlenBackend
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.paging.step import HostSpan, Span
from millstream.model.tolerance import ATTENTION_BACKENDS

log = logging.getLogger(__name__)

_KERNELS = "millstream.model.cuda.triton_attention"
_CONTEXT = 330  # tokens of a trial


def find_backends(
    shapes: Sequence[LayerShape],
    *,
    num_heads: Callable[[LayerShape], int],
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    candidates: Mapping[str, Callable[[], AttentionBackend]] | None = None,
) -> list[AttentionBackend]:
    """The backends that work here with layers of these shapes, best first.

    num_heads: query heads of a layer. candidates: how each backend is made, best first; by default
    all that there are.
    """
    backends: list[AttentionBackend] = []
    for name, make in (candidates or CANDIDATES).items():
        try:
            backend = make()
            for shape in sorted(set(shapes), key=repr):
                BackendTrial(
                    shape,
                    num_heads=num_heads(shape),
                    block_size=block_size,
                    dtype=dtype,
                    device=device,
                ).require_right(backend)
        except Exception as error:  # last resort: compilers and drivers raise what they like
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            log.info("attention by %s is not used: %s", name, reason)
        else:
            backends.append(backend)
    return backends


def _varlen() -> AttentionBackend:
    module = importlib.import_module("torch.nn.attention.varlen")
    parameters = inspect.signature(module.varlen_attn).parameters
    missing = {"block_table", "seqused_k", "window_size", "scale"} - set(parameters)
    if missing:
        raise NotImplementedError(f"this torch's varlen_attn has no {', '.join(sorted(missing))}")
    return VarlenBackend(module.varlen_attn)


def _triton() -> AttentionBackend:
    if importlib.util.find_spec("triton") is None:
        raise NotImplementedError("triton is not installed")
    # Imported here only: it takes a second, and machines without CUDA need not have it.
    return TritonBackend(importlib.import_module(_KERNELS))


CANDIDATES: Mapping[str, Callable[[], AttentionBackend]] = {"varlen": _varlen, "triton": _triton}


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
            self._random(generator, 2 * width, self.block_size, kv_heads, dim)
            for dim in (self.shape.key_dim, self.shape.value_dim)
        )
        order = torch.randperm(2 * width, generator=generator).view(2, width)
        tables = order.numpy().astype(np.int32)
        sinks = torch.randn(self.num_heads, generator=generator).to(self.device)
        for options in filter(backend.handles, _layer_options(sinks)):
            for what, lengths in (("decode", (1, 1)), ("prefill", (3, 80))):
                starts = np.array([7, _CONTEXT - lengths[1]])
                span = HostSpan.of_chunks(tables, starts, np.array(lengths)).put(
                    lambda array: torch.from_numpy(array).to(self.device)
                )
                query = self._random(generator, sum(lengths), self.num_heads, self.shape.key_dim)
                actual = getattr(backend, what)(query, keys, values, span, options)
                yield what, actual, _in_plain_torch(query, keys, values, span, options)

    def _random(self, generator: torch.Generator, *size: int) -> Tensor:
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
