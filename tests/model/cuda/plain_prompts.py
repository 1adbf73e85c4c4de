"""Attention to the prompts of a step in plain torch, those of captured steps included."""

from __future__ import annotations

import torch
from torch import Tensor

from millstream.model import reference
from millstream.model.attention import LayerOptions


def attend_to_prompts(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    *,
    starts: Tensor,
    firsts: Tensor,
    options: LayerOptions,
) -> Tensor:
    """query [T, heads, d] -> [T, heads, dv]; zeros for a chunk that is for nobody."""
    out = query.new_zeros(*query.shape[:2], values.shape[-1])
    for chunk, (start, first, end) in enumerate(
        zip(starts.tolist(), firsts.tolist(), firsts[1:].tolist(), strict=False)
    ):
        if start < 0 or first == end:
            assert start + end - first <= 0, "it sees keys"
            continue
        out[first:end] = reference.paged_attention_prefill(
            query[first:end],
            keys,
            values,
            tables[chunk : chunk + 1],
            torch.tensor([start]),
            torch.tensor([end - first]),
            scale=options.scale,
            window=options.window,
            chunk=options.chunk,
            softcap=options.softcap,
            sinks=options.sinks,
        )
    assert firsts[-1] == len(query), "rows of no chunk"
    return out
