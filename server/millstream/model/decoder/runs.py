"""Runs of a model on a few tokens: what goes in and out of its parts, and what it answers.

A run is observed to find out what the model's layers compute. Later the logits of such runs are
compared, when another way of computing the same layers is about to be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from millstream.model.attention import (
    AttentionBatch,
    LayerOptions,
    attend_dense,
    causal_mask,
)
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.native_backend import NativeBackend
from millstream.model.decoder.called_operators import OperatorRecorder, recording
from millstream.model.forward import Forward
from millstream.model.paging.backend import PagedAttention
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.step import HostSpan, PagedStep

_NUM_TOKENS = 8
_BLOCK_SIZE = 4


class Call(NamedTuple):
    """What one call of a module was given and returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class Attention(NamedTuple):
    """The attention of one layer: query [T, heads, d], key, value [T, kv_heads, d] and what came
    of them, out [T, heads, d]."""

    query: Tensor
    key: Tensor
    value: Tensor
    options: LayerOptions
    out: Tensor


@dataclass(slots=True)
class DenseBatch:
    """Attention among the tokens of one run, without a cache. An AttentionBatch.

    calls: what each layer asked for, by its index; grows by use. states: none come before the text.
    """

    operations: OperatorRecorder
    calls: dict[int, Attention] = field(default_factory=dict)
    states: None = None

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        """Attends as AttentionBatch says, and notes the call."""
        length = len(query)
        with self.operations.paused():
            mask = causal_mask(start=0, length=length, total=length, reach=options.reach)
            q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
            out = attend_dense(q, k, v, mask.to(q.device), options)[0].transpose(0, 1).contiguous()
        self.calls[layer] = Attention(query, key, value, options, out)
        return out


class Sample(NamedTuple):
    """Tokens to run a model on: input_ids, positions [1, T]."""

    input_ids: Tensor
    positions: Tensor

    @classmethod
    def spread(
        cls, *, vocab_size: int, max_context: int, device: torch.device | None = None
    ) -> Sample:
        """Up to 8 tokens at positions from the first to the last of the model's context."""
        number = torch.arange(min(_NUM_TOKENS, max_context), device=device)
        last = max(len(number) - 1, 1)
        return cls((number * 41 % vocab_size)[None], (number * (max_context - 1) // last)[None])

    def run(self, forward: Forward, batch: AttentionBatch) -> Tensor:
        """The logits of every token, [T, vocab]."""
        rows = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return forward(self.input_ids, self.positions, rows=rows, batch=batch)


class Observed(NamedTuple):
    """What was seen in a run. calls: of each module; attention: by the layer's index; operations:
    names of the operators that the layers call outside of their parts; logits [T, vocab]."""

    calls: dict[nn.Module, list[Call]]
    attention: dict[int, Attention]
    operations: set[str]
    logits: Tensor

    def call(self, module: nn.Module) -> Call | None:
        """The call of a module that was called once, else None."""
        calls = self.calls.get(module, [])
        return calls[0] if len(calls) == 1 else None


def observe(
    forward: Forward, sample: Sample, *, layers: Sequence[nn.Module], parts: Sequence[nn.Module]
) -> Observed:
    """Runs the model once and notes what its layers and their parts are given and return.

    layers: the decoder layers; parts: modules inside them, whose own operators are not noted.
    """
    calls: dict[nn.Module, list[Call]] = {}

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.setdefault(module, []).append(Call(args, kwargs, output))

    hooks = [
        module.register_forward_hook(note, with_kwargs=True)
        for module in dict.fromkeys((*layers, *parts))
    ]
    try:
        with recording(layers, parts) as operations:
            batch = DenseBatch(operations)
            logits = sample.run(forward, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return Observed(calls, batch.calls, operations.names, logits)


class PathComparison(NamedTuple):
    """A model, and what it takes to run it on a sample over a cache, by one path after the other.

    forward: of the model; shapes: by layer; dtype: that the model computes in.
    """

    forward: Forward
    sample: Sample
    shapes: Mapping[int, LayerShape]
    kernels: Kernels
    dtype: torch.dtype

    def logits(self) -> Tensor:
        """Logits [T, vocab] of the sample's tokens by the path that would serve them now.

        The sample is one step over a cache of its own: the last token is a decode row, and the
        others are a prompt chunk, which comes after it; so the last token's logits come first.
        """
        count = self.sample.input_ids.shape[1]
        blocks = -(-count // _BLOCK_SIZE)
        cache = KVCache(
            dict(self.shapes),
            num_blocks=blocks,
            block_size=_BLOCK_SIZE,
            dtype=self.dtype,
            device=torch.device("cpu"),
        )
        order, table = torch.arange(count).roll(1), np.arange(blocks, dtype=np.int32)[None]

        def span(start: int, length: int) -> HostSpan:
            return HostSpan.of_chunks(table, np.array([start]), np.array([length]))

        step = PagedStep(
            slots=order,
            decodes=span(count - 1, 1).put(torch.from_numpy),
            prompts=span(0, count - 1).put(torch.from_numpy) if count > 1 else None,
        )
        batch = PagedAttention(step, cache, [NativeBackend(self.kernels)])
        sample = Sample(self.sample.input_ids[:, order], self.sample.positions[:, order])
        return sample.run(self.forward, batch)
