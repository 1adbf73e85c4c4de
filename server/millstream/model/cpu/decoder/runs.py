"""One run of a model on a few tokens: what goes in and out of its layers and of their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from millstream.model.attention import (
    AttentionBatch,
    LayerOptions,
    attend_dense,
    causal_mask,
)
from millstream.model.cpu.decoder.called_operators import Operations, noted
from millstream.model.forward import Forward
from millstream.model.reference import rotate

_NUM_TOKENS = 8


class Call(NamedTuple):
    """Of one module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class Attention(NamedTuple):
    """Of one layer: query [T, heads, d], key, value [T, kv_heads, d], out [T, heads, d]."""

    query: Tensor
    key: Tensor
    value: Tensor
    options: LayerOptions
    out: Tensor


@dataclass(slots=True)
class DenseBatch:
    """Attention among the tokens of one run, nothing cached. A RotaryBatch.

    calls: by layer; grows by use.
    """

    operations: Operations
    calls: dict[int, Attention] = field(default_factory=dict)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        """See AttentionBatch."""
        length = len(query)
        with self.operations.paused():
            mask = causal_mask(start=0, length=length, total=length, window=options.window)
            q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
            out = attend_dense(q, k, v, mask, options)[0].transpose(0, 1).contiguous()
        self.calls[layer] = Attention(query, key, value, options, out)
        return out

    def attend_rotary(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        angles: tuple[Tensor, Tensor],
        options: LayerOptions,
    ) -> Tensor:
        """See RotaryBatch."""
        return self.attend(layer, rotate(query, *angles), rotate(key, *angles), value, options)


class Sample(NamedTuple):
    """Tokens to run a model on: input_ids, positions [1, T]."""

    input_ids: Tensor
    positions: Tensor

    @classmethod
    def spread(cls, *, vocab_size: int, max_context: int) -> Sample:
        """From the first position to the last."""
        number = torch.arange(min(_NUM_TOKENS, max_context))
        last = max(len(number) - 1, 1)
        return cls((number * 41 % vocab_size)[None], (number * (max_context - 1) // last)[None])

    def run(self, forward: Forward, batch: AttentionBatch) -> Tensor:
        """Logits [T, vocab]."""
        rows = torch.arange(self.input_ids.shape[1])
        return forward(self.input_ids, self.positions, rows=rows, batch=batch)


class Observed(NamedTuple):
    """calls: of each module; attention: by layer; operations: names of the operators that the
    layers call themselves; logits [T, vocab]."""

    calls: dict[nn.Module, list[Call]]
    attention: dict[int, Attention]
    operations: set[str]
    logits: Tensor

    def call(self, module: nn.Module) -> Call | None:
        """The module's only one, or None."""
        found = self.calls.get(module, [])
        return found[0] if len(found) == 1 else None


def observe(
    forward: Forward, sample: Sample, *, layers: Sequence[nn.Module], parts: Sequence[nn.Module]
) -> Observed:
    """Runs the model. parts: of the layers, their inner workings are of no interest."""
    calls: dict[nn.Module, list[Call]] = {}

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.setdefault(module, []).append(Call(args, kwargs, output))

    hooks = [
        module.register_forward_hook(note, with_kwargs=True)
        for module in dict.fromkeys((*layers, *parts))
    ]
    try:
        with noted(layers, parts) as operations:
            batch = DenseBatch(operations)
            logits = sample.run(forward, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return Observed(calls, batch.calls, operations.names, logits)
