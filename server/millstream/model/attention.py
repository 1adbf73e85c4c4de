"""Attention over a paged KV cache, plugged into any transformers model.

transformers calls the function registered here instead of its own attention and passes through
our keyword arguments: `millstream_batch` knows what the packed tokens of the step mean,
`millstream_reaches` how far back each layer sees, as found at start by `probe`
(https://huggingface.co/docs/transformers/attention_interface). No mask is registered for the name,
so transformers builds none.

Rules: a token attends to its own sequence only, at positions up to its own; nothing here depends
on which other sequences are in the batch, except how matrix products round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from millstream.errors import StartupError
from millstream.model.states.model_cache import LayerNumbers
from millstream.model.states.state_step import StateStep

ATTENTION_NAME = "millstream"
BATCH_KWARG = "millstream_batch"
NUMBERS_KWARG = "millstream_numbers"
REACHES_KWARG = "millstream_reaches"


class Reach(NamedTuple):
    """How far back a token sees. window: so many positions, its own included (sliding window).
    chunk: from the last multiple of it on (chunked attention). At most one is given; None is all.
    """

    window: int | None = None
    chunk: int | None = None

    def first(self, positions: Tensor) -> Tensor | None:
        """The first position that tokens at `positions` see, of the same shape; None: all do 0."""
        if self.chunk is not None:
            return positions - positions % self.chunk
        return None if self.window is None else positions - (self.window - 1)


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What a model's layer asks of attention beyond softmax(q k^T * scale) v.

    window, chunk: how far back a token sees; see Reach.
    softcap: scores become softcap * tanh(scores / softcap) (Gemma 2).
    sinks: one extra score per query head that takes part in softmax only (GPT-OSS), [heads].
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    chunk: int | None = None

    @property
    def reach(self) -> Reach:
        """How far back a token sees."""
        return Reach(self.window, self.chunk)


class AttentionBatch(Protocol):
    """Attention among the packed tokens of one forward call, which belong to several sequences.

    states: those of the sequences, for layers that keep them; None for a model without.
    """

    @property
    def states(self) -> StateStep | None: ...

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        """What each token attends to: query [T, heads, d], key [T, kv_heads, d], value
        [T, kv_heads, dv] -> [T, heads, dv]. layer: its index in the model."""
        ...


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls: query [1, heads, T, d] -> ([1, T, heads, dv], None)."""
    if attention_mask is not None:
        raise StartupError("it makes attention masks of its own")
    batch: AttentionBatch = kwargs[BATCH_KWARG]
    layer = layer_number(module, kwargs)
    assert layer is not None, "probe refuses other models"
    options = layer_options(query, kwargs, kwargs[REACHES_KWARG][layer])
    out = batch.attend(
        layer, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), options
    )
    return out.unsqueeze(0), None


def layer_number(module: nn.Module, passed: dict[str, Any]) -> int | None:
    """Index of the layer that a module attends for: what a cache was told, where one says so, else
    what the module says; None if nobody does."""
    numbers: LayerNumbers | None = passed.get(NUMBERS_KWARG)
    number = getattr(module, "layer_idx", None) if numbers is None else numbers.take()
    return number if isinstance(number, int) else None


def layer_options(query: Tensor, passed: dict[str, Any], reach: Reach) -> LayerOptions:
    """The options of a layer, from what transformers passes to its attention function.

    query [1, heads, T, d]; passed: the keyword arguments; reach: how far back the layer sees.

    Intentional: `sliding_window` is not read. Some models leave it to the mask, which is also what
    transformers' own eager and sdpa attention go by.
    """
    scale = passed.get("scaling")
    return LayerOptions(
        scale=scale if scale is not None else query.shape[-1] ** -0.5,
        window=reach.window,
        softcap=passed.get("softcap"),
        sinks=passed.get("s_aux"),
        chunk=reach.chunk,
    )


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Makes every part of `model` look up its attention by `name`, whatever its class declares.

    Intentional: `set_attn_implementation()` leaves classes alone whose source it does not
    recognise, with no more than a warning. Which parts do attend by the name is what `probe` finds.
    """
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            config._attn_implementation = name  # of its parts, too


def register() -> None:
    """Makes `ATTENTION_NAME` known to transformers. Idempotent."""
    AttentionInterface.register(ATTENTION_NAME, attention_forward)


def causal_mask(*, start: int, length: int, total: int, reach: Reach) -> Tensor:
    """[length, total] bool: True where the token at position start + row sees position `column`."""
    queries = torch.arange(start, start + length).unsqueeze(1)
    keys = torch.arange(total).unsqueeze(0)
    mask, first = keys <= queries, reach.first(queries)
    return mask if first is None else mask & (keys >= first)


def attend_dense(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: LayerOptions
) -> Tensor:
    """Attention over contiguous keys.

    query [b, heads, n, d], key [b, kv_heads, m, d], value [b, kv_heads, m, dv] give
    [b, heads, n, dv]. mask is boolean and broadcasts to [b, 1, n, m] (True is seen); None is
    causal, with n == m.
    """
    if options.softcap is None and options.sinks is None:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=options.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(-1, -2)).float() * options.scale
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if mask is None:
        mask = causal_mask(start=0, length=query.shape[2], total=key.shape[2], reach=Reach())
    scores = scores.masked_fill(~mask.to(scores.device), float("-inf"))
    if options.sinks is not None:
        sinks = options.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = scores.softmax(dim=-1)
    return weights.to(value.dtype) @ value
