"""All decoder layers of a model as one module: the usual layer, by kernels and merged linears.

    x = x + o(attention(rotated(q(norm(x))), rotated(k(norm(x))), v(norm(x))))
    x = x + mlp(norm(x))

q and k may have norms of their own, per head; a layer may go without rotary positions; the MLP is
whatever the model has. recognise.py says which models are made of such layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from millstream.model.attention import BATCH_KWARG, AttentionBatch, LayerOptions
from millstream.model.decoder.parts import Joined, Pack
from millstream.model.layer_operations import LayerOperations, Norm, split_heads
from millstream.model.paging.backend import PagedAttention
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.step import PagedStep
from millstream.model.reference import rotate


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One usual decoder layer: its parts, and how they are put together.

    index: its number in the cache; heads, kv_heads, dim: query heads, key heads, and their size;
    qkv: [T, n] -> [T, (heads + 2 * kv_heads) * dim]; out: [T, heads * dim] -> [T, n]; mlp keeps
    [T, n]; is_rotary: queries and keys turn with their position.
    """

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
        """Replaces the linear layers around attention, which nothing else refers to then."""
        self.qkv.merge(pack)
        self.out.merge(pack)


class CompiledDecoder(NamedTuple):
    """All decoder layers of a model as one object of the compiled kernels.

    decoder: an instance of the Decoder in `decoder.h`; indices: the layers' numbers in the cache;
    is_whole: kernels compute all products, none is left to torch.
    """

    decoder: Any
    indices: tuple[int, ...]
    is_whole: bool

    def run(
        self, hidden: Tensor, angles: tuple[Tensor, Tensor], step: PagedStep, cache: KVCache
    ) -> Tensor:
        """All layers: hidden [T, n], angles (cos and sin of each row, [T, r]) -> [T, n]."""
        out: Tensor = self.decoder.run(hidden, *angles, *self._in_memory(step, cache))
        return out

    def logits(
        self,
        token_ids: Tensor,
        positions: Tensor,
        *,
        rows: Tensor,
        angles: tuple[Tensor, Tensor],
        step: PagedStep,
        cache: KVCache,
    ) -> Tensor:
        """The whole model: token_ids, positions [T], rows [m] -> logits [m, vocab] of those rows.

        angles: cos and sin of every position, [positions, r]. Raises RuntimeError if the decoder
        was not given what is around its layers, or if there is no such token, position or row.
        """
        in_memory = self._in_memory(step, cache)
        out: Tensor = self.decoder.logits(token_ids, positions, rows, *angles, *in_memory)
        return out

    def _in_memory(self, step: PagedStep, cache: KVCache) -> tuple[Any, ...]:
        """The last arguments of the decoder's functions: where keys and values go, and where those
        lie that each row sees."""
        decodes, prompts = step.decodes, step.prompts
        return (
            step.slots,
            [cache.keys[index] for index in self.indices],
            [cache.values[index] for index in self.indices],
            None if decodes is None else decodes.tables,
            None if decodes is None else decodes.starts,
            None if prompts is None else prompts.tables,
            None if prompts is None else prompts.starts,
            None if prompts is None else prompts.lengths,
        )


class DecoderStack(nn.Module):
    """Takes the place of a model's list of decoder layers, as its only element.

    compiled: where there is one, it runs the layers of every step over the paged cache.
    """

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        operations: LayerOperations,
        others: Sequence[nn.Module] = (),
    ) -> None:
        """others: modules of the model that layers call; as children of this one they are packed
        like all others."""
        super().__init__()
        self.others = nn.ModuleList(others)
        self.layers = layers
        self.compiled: CompiledDecoder | None = None
        self._operations = operations

    def merge(self, pack: Pack) -> None:
        """Replaces the linear layers around attention; see DecoderLayer."""
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
        batch: AttentionBatch = kwargs[BATCH_KWARG]
        angles = position_embeddings[0][0], position_embeddings[1][0]
        if self.compiled is not None and isinstance(batch, PagedAttention):
            out = self.compiled.run(hidden_states[0], angles, batch.step, batch.cache)
            return out.unsqueeze(0)
        add_norm = self._operations.add_rms_norm
        x, layers = hidden_states[0], self.layers
        norm = layers[0].attention_norm
        normal = self._operations.rms_norm(x, norm.weight, norm.eps, unit_offset=norm.unit_offset)
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

    def heads(self, layer: DecoderLayer, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, heads, dim], keys and values [T, kv_heads, dim], before rotation."""
        return split_heads(
            qkv,
            heads=layer.heads,
            kv_heads=layer.kv_heads,
            q_norm=layer.q_norm,
            k_norm=layer.k_norm,
            rms_norm=self._operations.rms_norm,
        )

    def _attend(
        self,
        layer: DecoderLayer,
        normal: Tensor,
        angles: tuple[Tensor, Tensor],
        batch: AttentionBatch,
    ) -> Tensor:
        """normal [T, n], angles (cos and sin, [T, r]) -> [T, n], after the output projection."""
        qkv = layer.qkv(normal)
        if isinstance(batch, PagedAttention):
            query = self._operations.heads_to_cache(
                qkv,
                heads=layer.heads,
                kv_heads=layer.kv_heads,
                q_norm=layer.q_norm,
                k_norm=layer.k_norm,
                angles=angles if layer.is_rotary else None,
                slots=batch.step.slots,
                key_cache=batch.cache.keys[layer.index],
                value_cache=batch.cache.values[layer.index],
            )
            attended = batch.attend_cached(layer.index, query, layer.options)
        else:
            query, key, value = self.heads(layer, qkv)
            if layer.is_rotary:
                query, key = rotate(query, *angles), rotate(key, *angles)
            attended = batch.attend(layer.index, query, key, value, layer.options)
        return layer.out(attended.flatten(1))
