"""Ways to attend to paged keys on a CUDA device; `selection` finds those that work on it.

Rule: the first of them that knows what a layer asks for is used; where none does, keys are
gathered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from millstream.model.attention import LayerOptions


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that attend together: one token of each of n sequences, or n prompt chunks.

    tables [n, blocks] int32; starts [n]: position of the first new token of each; ends [n] int32:
    tokens of each sequence, new ones included; firsts [n + 1] int32: row of each one's first
    token, and the end; longest: new tokens of the longest; longest_context: bound for `ends`.
    """

    tables: Tensor
    starts: Tensor
    ends: Tensor
    firsts: Tensor
    longest: int
    longest_context: int


class Backend(Protocol):
    """One way to attend. handles_all: any layer's, so that decode steps can be captured."""

    name: str
    handles_all: bool

    def handles(self, options: LayerOptions) -> bool: ...

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """query [n, heads, d], caches [blocks, block_size, kv_heads, d or dv] -> [n, heads, dv]."""
        ...

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The same for the tokens of prompt chunks, one chunk after the other."""
        ...


class TritonBackend:
    """Our own kernels. `kernels`: the module triton_attention."""

    name = "triton-paged"
    handles_all = True

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def handles(self, options: LayerOptions) -> bool:
        return True

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        out: Tensor = self._kernels.decode(query, keys, values, span.tables, span.starts, options)
        return out

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        out: Tensor = self._kernels.prefill(
            *(query, keys, values, span.tables, span.starts, span.firsts, options, span.longest)
        )
        return out


class VarlenBackend:
    """torch's own `varlen_attn` over a block table, in the versions of torch that have one."""

    name = "varlen-paged"
    handles_all = False

    def __init__(self, varlen_attn: Callable[..., Any]) -> None:
        self._varlen_attn = varlen_attn
        self._needs_gqa_flag = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def handles(self, options: LayerOptions) -> bool:
        return options.softcap is None and options.sinks is None

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        return self.prefill(query, keys, values, span, options)

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        left = -1 if options.window is None else options.window - 1
        extra = {"enable_gqa": True} if self._needs_gqa_flag else {}
        out: Tensor = self._varlen_attn(
            *(query, keys, values, span.firsts, None, span.longest, span.longest_context),
            scale=options.scale,
            window_size=(left, 0),
            seqused_k=span.ends,
            block_table=span.tables,
            **extra,
        )
        return out
