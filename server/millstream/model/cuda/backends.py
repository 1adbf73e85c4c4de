"""The attention backends of CUDA devices; `selection` finds those that work on the device.

Rule: the host is asked for nothing that differs from step to step but `longest` and
`longest_context`, which only bound what the device reads for itself. Triton kernels need neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.paging.step import Span


class TritonBackend:
    """Our own kernels, for all options."""

    name = "triton-paged"
    is_capturable = True

    def __init__(self, kernels: Any, *, overlaps: bool = False) -> None:
        """kernels: the module triton_attention, which machines without Triton cannot import.
        overlaps: kernels of decode rows may begin before the one before them ends."""
        self.kernels = kernels
        self.overlaps = overlaps

    def handles(self, options: LayerOptions) -> bool:
        """Always True."""
        return True

    def num_splits(self, rows: int, kv_heads: int) -> int:
        """How many parts the keys of each of so many decode rows are cut into. Another number is
        another kernel."""
        return int(self.kernels.num_splits(rows * kv_heads))

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """One token of each of n sequences attends: query [n, heads, d] -> [n, heads, dv]."""
        passed = query, keys, values, span.tables, span.starts, options
        out: Tensor = self.kernels.decode(*passed, overlaps=self.overlaps)
        return out

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The T tokens of prompt chunks attend: query [T, heads, d] -> [T, heads, dv]."""
        out: Tensor = self.kernels.prefill(
            query,
            keys,
            values,
            span.tables,
            starts=span.starts,
            firsts=span.firsts,
            options=options,
        )
        return out


class VarlenBackend:
    """torch's own `varlen_attn` over a block table, in the versions of torch that have one."""

    name = "varlen-paged"
    is_capturable = False

    def __init__(self, varlen_attn: Callable[..., Any]) -> None:
        """varlen_attn: the function of torch.nn.attention.varlen."""
        self._varlen_attn = varlen_attn
        self._needs_gqa_flag = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def handles(self, options: LayerOptions) -> bool:
        """Whether there are neither a soft cap nor sinks nor chunks."""
        return options.softcap is None and options.sinks is None and options.chunk is None

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """One token of each of n sequences attends: query [n, heads, d] -> [n, heads, dv]."""
        return self.prefill(query, keys, values, span, options)

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The T tokens of prompt chunks attend: query [T, heads, d] -> [T, heads, dv]."""
        left = -1 if options.window is None else options.window - 1
        extra = {"enable_gqa": True} if self._needs_gqa_flag else {}
        out: Tensor = self._varlen_attn(
            query,
            keys,
            values,
            cu_seq_q=span.firsts,
            cu_seq_k=None,
            max_q=span.longest,
            max_k=span.longest_context,
            scale=options.scale,
            window_size=(left, 0),
            seqused_k=span.ends,
            block_table=span.tables,
            **extra,
        )
        return out
