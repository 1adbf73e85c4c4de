"""Attention of prompt tokens by torch's flash attention, over keys gathered from their blocks.

Over keys that lie side by side that kernel is two to four times as fast as ours is over blocks, and
to gather them takes little beside it where a prompt is long. `dense_trial` finds out from how many
tokens on; shorter prompts, other options and all decode rows are computed by our kernels.

Rule: what a row sees is the same either way, so results differ by rounding only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cuda.backends import TritonBackend
from millstream.model.paging.step import Span


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Which prompts are computed in a way that is for long ones. fresh: those of a step in which no
    chunk has a prefix, if they have so many tokens together; continued: the same of other steps;
    None: none are. most_keys: that they have at most, prefixes included."""

    fresh: int | None
    continued: int | None
    most_keys: int

    def allow(self, *, tokens: int, keys: int, has_prefix: bool) -> bool:
        """Whether prompts of so many tokens and keys are; has_prefix: one of them has a prefix."""
        fewest = self.continued if has_prefix else self.fresh
        return fewest is not None and tokens >= fewest and keys <= self.most_keys


@dataclass(frozen=True, slots=True)
class GatheredKeys:
    """The places of a span's keys. slots [K] int64: counted in tokens of the cache, sequence after
    sequence; firsts [n + 1] int32: the number of each sequence's first key, and K."""

    slots: Tensor
    firsts: Tensor

    @classmethod
    def of(cls, span: Span, block_size: int) -> GatheredKeys:
        """All keys that the sequences of a span have, computed on the device of its tables."""
        count = int(span.on_host.ends.sum())
        firsts = torch.zeros_like(span.firsts)
        torch.cumsum(span.ends, 0, dtype=torch.int32, out=firsts[1:])
        # The size is given, so that the host does not wait for it.
        sequence = torch.repeat_interleave(span.ends, output_size=count)
        positions = torch.arange(count, device=firsts.device) - firsts[sequence]
        blocks = span.tables[sequence, positions // block_size]
        return cls(blocks * block_size + positions % block_size, firsts)


class DensePromptBackend(TritonBackend):
    """Our kernels, and torch's `varlen_attn` for the prompts within the limits."""

    name = "triton-paged+varlen-dense"

    def __init__(
        self,
        kernels: Any,
        varlen_attn: Callable[..., Any],
        *,
        limits: PromptLimits,
        overlaps: bool = False,
    ) -> None:
        """kernels, overlaps: as TritonBackend has them; varlen_attn: the function of torch;
        limits: which prompts are attended densely."""
        super().__init__(kernels, overlaps=overlaps)
        self.limits = limits
        self._varlen_attn = varlen_attn
        self._needs_gqa_flag = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def is_dense(self, span: Span, options: LayerOptions) -> bool:
        """Whether the prompts of this span are attended densely. Those of a captured step are not:
        how many keys to gather is a number of the host."""
        if span.host is None:
            return False
        if not (options.softcap is None and options.sinks is None and options.chunk is None):
            return False
        return span.once("is_dense", lambda: self._is_within_limits(span))

    def _is_within_limits(self, span: Span) -> bool:
        host = span.on_host
        return self.limits.allow(
            tokens=int(host.firsts[-1]),
            keys=int(host.ends.sum()),
            has_prefix=bool(host.starts.any()),
        )

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The T tokens of prompt chunks attend: query [T, heads, d] -> [T, heads, dv]."""
        if not self.is_dense(span, options):
            return super().prefill(query, keys, values, span, options)
        gathered = span.once("gathered", lambda: GatheredKeys.of(span, keys.shape[1]))
        extra = {"enable_gqa": True} if self._needs_gqa_flag else {}
        out: Tensor = self._varlen_attn(
            query,
            keys.flatten(0, 1).index_select(0, gathered.slots),
            values.flatten(0, 1).index_select(0, gathered.slots),
            cu_seq_q=span.firsts,
            cu_seq_k=gathered.firsts,
            max_q=span.longest,
            max_k=span.longest_context,
            scale=options.scale,
            window_size=(-1 if options.window is None else options.window - 1, 0),
            **extra,
        )
        return out
