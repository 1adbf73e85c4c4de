"""One usual decoder layer: its parts, and what is done with them (see stack.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cpu.decoder.parts import Joined, Norm, Pack


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. qkv: [T, n] -> [T, (heads + 2 * kv_heads) * dim]; mlp keeps [T, n]."""

    index: int
    heads: int
    kv_heads: int
    dim: int
    attention_norm: Norm
    qkv: Joined
    q_norm: Norm | None
    k_norm: Norm | None
    is_rotary: bool
    options: LayerOptions
    out: Joined
    mlp_norm: Norm
    mlp: Callable[[Tensor], Tensor]

    def merge(self, pack: Pack) -> None:
        """Replaces the linear layers around attention, which nothing else holds then."""
        self.qkv.merge(pack)
        self.out.merge(pack)
