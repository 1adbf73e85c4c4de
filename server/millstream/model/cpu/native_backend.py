"""Attention by the compiled kernels, which read the cache's blocks where they lie."""

from __future__ import annotations

from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cpu.kernels import Kernels
from millstream.model.paging.step import Span


class NativeBackend:
    """An AttentionBackend for the CPU and all options.

    The kernels skip what a row does not see, so sequences of any lengths go in one call per layer.
    """

    name = "native-paged"
    is_capturable = False

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def handles(self, options: LayerOptions) -> bool:
        """Whether attention is not chunked."""
        return options.chunk is None

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """One token of each of n sequences attends: query [n, heads, d] -> [n, heads, dv]."""
        return self._kernels.paged_attention_decode(
            query,
            keys,
            values,
            span.tables,
            span.starts,
            scale=options.scale,
            window=options.window,
            softcap=options.softcap,
            sinks=options.sinks,
        )

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The T tokens of prompt chunks attend: query [T, heads, d] -> [T, heads, dv]."""
        return self._kernels.paged_attention_prefill(
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
        )
