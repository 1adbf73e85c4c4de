"""All decoder layers of a model as one module: the usual layer, by kernels and merged linears.

    x = x + o(attention(rotated(q(norm(x))), rotated(k(norm(x))), v(norm(x))))
    x = x + mlp(norm(x))

q and k may have norms of their own, per head; a layer may go without rotary positions; the MLP is
whatever the model has. `match` says which models are made of such layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from millstream.model.attention import BATCH_KWARG, AttentionBatch, LayerOptions
from millstream.model.cpu.attention import CompiledDecoder, NativeBatch
from millstream.model.cpu.decoder.layer import Layer
from millstream.model.cpu.decoder.parts import Norm, Pack
from millstream.model.cpu.kernels.kernels import Kernels


class RotaryBatch(AttentionBatch, Protocol):
    """An AttentionBatch that can turn queries and keys itself."""

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
        """As attend(), after the rotation by angles: cos and sin, [T, r] each."""
        ...


class DecoderStack(nn.Module):
    """Takes the place of a model's list of decoder layers, as its only element."""

    def __init__(
        self, layers: Sequence[Layer], kernels: Kernels, others: Sequence[nn.Module] = ()
    ) -> None:
        """others: modules of the model that layers call; here they are found and packed."""
        super().__init__()
        self.others = nn.ModuleList(others)
        self.layers = layers
        self.compiled: CompiledDecoder | None = None  # for batches of the kernels
        self._kernels = kernels

    def merge(self, pack: Pack) -> None:
        """See Layer."""
        for layer in self.layers:
            layer.merge(pack)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        **kwargs: Any,  # what transformers passes to every layer; attention is in the batch
    ) -> Tensor:
        """hidden_states [1, T, n], position_embeddings [1, T, r] each -> [1, T, n]."""
        batch: RotaryBatch = kwargs[BATCH_KWARG]
        angles = position_embeddings[0][0], position_embeddings[1][0]
        if self.compiled is not None and isinstance(batch, NativeBatch):
            return batch.decode(self.compiled, hidden_states[0], angles).unsqueeze(0)
        add_norm = self._kernels.add_rms_norm
        x, layers = hidden_states[0], self.layers
        norm = layers[0].attention_norm
        normal = self.normal(x, norm)
        for number, layer in enumerate(layers, 1):
            attended = self._attend(layer, normal, angles, batch)
            norm = layer.mlp_norm
            normal, x = add_norm(
                attended, x, norm.weight, eps=norm.eps, unit_offset=norm.unit_offset
            )
            added = layer.mlp(normal)
            if number < len(layers):
                norm = layers[number].attention_norm
                normal, x = add_norm(
                    added, x, norm.weight, eps=norm.eps, unit_offset=norm.unit_offset
                )
        return (x + added).unsqueeze(0)

    def normal(self, x: Tensor, norm: Norm) -> Tensor:
        """x [..., n] with 2 or 3 dimensions, normalised."""
        return self._kernels.rms_norm(x, norm.weight, norm.eps, unit_offset=norm.unit_offset)

    def heads(self, layer: Layer, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, heads, dim], keys and values [T, kv_heads, dim], before rotation."""
        sizes = [layer.heads, layer.kv_heads, layer.kv_heads]
        query, key, value = torch.split_with_sizes(qkv.view(len(qkv), -1, layer.dim), sizes, dim=1)
        if layer.q_norm is not None:
            query = self.normal(query, layer.q_norm)
        if layer.k_norm is not None:
            key = self.normal(key, layer.k_norm)
        return query, key, value

    def _attend(
        self, layer: Layer, normal: Tensor, angles: tuple[Tensor, Tensor], batch: RotaryBatch
    ) -> Tensor:
        query, key, value = self.heads(layer, layer.qkv(normal))
        if layer.is_rotary:
            found = batch.attend_rotary(
                layer.index, query, key, value, angles=angles, options=layer.options
            )
        else:
            found = batch.attend(layer.index, query, key, value, layer.options)
        return layer.out(found.flatten(1))
