"""The small operations of decoder layers, between their matrix products: what computes them.

On the CPU they are compiled kernels, on CUDA Triton's; what they mean is written in `reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Norm:
    """What `reference.rms_norm` needs to compute what a module of a model computes.

    weight: [n]. eps: added to the mean square. unit_offset: the row is multiplied by 1 + weight.
    """

    weight: Tensor
    eps: float
    unit_offset: bool


@dataclass(frozen=True, slots=True)
class LayerOperations:
    """Functions of `reference`, by their names there, and `heads_to_cache()`; all tensors of a call
    are on one device."""

    rms_norm: Callable[..., Tensor]
    add_rms_norm: Callable[..., tuple[Tensor, Tensor]]
    silu_mul: Callable[..., Tensor]
    gelu_tanh_mul: Callable[..., Tensor]
    heads_to_cache: Callable[..., Tensor]

    @classmethod
    def of(cls, functions: Any) -> LayerOperations:
        """Those of an object that has the functions of `reference` by their names."""
        return cls(
            rms_norm=functions.rms_norm,
            add_rms_norm=functions.add_rms_norm,
            silu_mul=functions.silu_mul,
            gelu_tanh_mul=functions.gelu_tanh_mul,
            heads_to_cache=partial(
                heads_to_cache,
                rms_norm=functions.rms_norm,
                rotary_to_cache=functions.rotary_to_cache,
            ),
        )


def heads_to_cache(
    merged: Tensor,
    *,
    heads: int,
    kv_heads: int,
    q_norm: Norm | None,
    k_norm: Norm | None,
    angles: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    rms_norm: Callable[..., Tensor],
    rotary_to_cache: Callable[..., tuple[Tensor, Tensor]],
) -> Tensor:
    """Stores keys and values, returns queries: merged [T, (heads + 2 * kv_heads) * d], queries,
    keys and values side by side -> [T, heads, d].

    q_norm, k_norm: of each head, before it turns. angles: cos and sin [T, r] as in
    `reference.rotary_to_cache()`; None: nothing turns. slots [T]: where each token goes in the
    caches [blocks, block_size, kv_heads, d], counted in tokens. rms_norm, rotary_to_cache: what
    computes it, in several calls.
    """
    query, key, value = split_heads(
        merged, heads=heads, kv_heads=kv_heads, q_norm=q_norm, k_norm=k_norm, rms_norm=rms_norm
    )
    if angles is None:
        key_cache.flatten(0, 1).index_copy_(0, slots, key)
        value_cache.flatten(0, 1).index_copy_(0, slots, value)
        return query
    query, _ = rotary_to_cache(
        query,
        key,
        value,
        cos=angles[0],
        sin=angles[1],
        slots=slots,
        key_cache=key_cache,
        value_cache=value_cache,
    )
    return query


def split_heads(
    merged: Tensor,
    *,
    heads: int,
    kv_heads: int,
    q_norm: Norm | None,
    k_norm: Norm | None,
    rms_norm: Callable[..., Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [T, heads, d], keys and values [T, kv_heads, d] out of merged ones, normalised and
    not turned; the arguments are those of `heads_to_cache()`."""
    sizes = [heads, kv_heads, kv_heads]
    apart = merged.view(len(merged), sum(sizes), -1)
    query, key, value = torch.split_with_sizes(apart, sizes, dim=1)
    if q_norm is not None:
        query = rms_norm(query, q_norm.weight, q_norm.eps, unit_offset=q_norm.unit_offset)
    if k_norm is not None:
        key = rms_norm(key, k_norm.weight, k_norm.eps, unit_offset=k_norm.unit_offset)
    return query, key, value
