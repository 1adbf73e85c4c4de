"""Attention by the compiled kernels, which read the cache's blocks where they lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cpu.kernels.kernels import Kernels
from millstream.model.paging.batch import DecodeGroup, Packer, PagedBatch, PromptPart
from millstream.model.paging.kv_cache import KVCache


class CompiledDecoder(NamedTuple):
    """All decoder layers of a model as a compiled object.

    indices: theirs in the cache; is_whole: no product in them is computed by torch.
    """

    decoder: Any
    indices: tuple[int, ...]
    is_whole: bool


class NativeBatch(PagedBatch):
    """A step whose decode rows are attended in one call per layer, whatever their lengths, and
    all prompt chunks in another."""

    def __init__(
        self,
        cache: KVCache,
        slots: Tensor,
        decodes: list[DecodeGroup],
        prompts: list[PromptPart],
        *,
        kernels: Kernels,
    ) -> None:
        super().__init__(cache, slots, decodes, prompts)
        self._kernels = kernels
        self._tables: Tensor | None = None
        self._starts: Tensor | None = None
        self._lengths: Tensor | None = None
        if prompts:
            self._tables = _stacked([part.blocks[0] for part in prompts])
            self._starts = torch.tensor([part.start for part in prompts])
            self._lengths = torch.tensor([part.length for part in prompts])

    def decode(
        self, compiled: CompiledDecoder, hidden: Tensor, angles: tuple[Tensor, Tensor]
    ) -> Tensor:
        """All layers at once. hidden [T, n], angles as in attend_rotary -> [T, n]."""
        out: Tensor = compiled.decoder.run(hidden, *angles, *self._places(compiled))
        return out

    @property
    def num_positions(self) -> int:
        """All positions of the step's tokens are below this."""
        tables = [group.blocks for group in self._decodes]
        if self._tables is not None:
            tables.append(self._tables)
        return max(table.shape[1] for table in tables) * self._cache.block_size

    def logits(
        self,
        compiled: CompiledDecoder,
        token_ids: Tensor,
        positions: Tensor,
        *,
        rows: Tensor,
        angles: tuple[Tensor, Tensor],
    ) -> Tensor:
        """From token ids and positions [T] to logits [len(rows), vocab], by a decoder that knows
        what is around its layers. angles: cos and sin [n, r] of every position."""
        out: Tensor = compiled.decoder.logits(
            token_ids, positions, rows, *angles, *self._places(compiled)
        )
        return out

    def _places(self, compiled: CompiledDecoder) -> tuple[Any, ...]:
        """Where the step's keys and values go and lie, as the decoder takes it."""
        group = self._decodes[0] if self._decodes else None
        return (
            self._slots,
            [self._cache.keys[index] for index in compiled.indices],
            [self._cache.values[index] for index in compiled.indices],
            None if group is None else group.blocks,
            None if group is None else group.positions,
            self._tables,
            self._starts,
            self._lengths,
        )

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
        query, key = self._kernels.rotary_to_cache(
            query,
            key,
            value,
            cos=angles[0],
            sin=angles[1],
            slots=self._slots,
            key_cache=self._cache.keys[layer],
            value_cache=self._cache.values[layer],
        )
        return self._attend(layer, query, key, value, options)

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        if self._decodes:
            return super()._attend(layer, query, key, value, options)
        return self._attend_chunks(layer, query, options)

    def _attend_decode(
        self, layer: int, query: Tensor, group: DecodeGroup, options: LayerOptions
    ) -> Tensor:
        return self._kernels.paged_attention_decode(
            query,
            self._cache.keys[layer],
            self._cache.values[layer],
            group.blocks,
            group.positions,
            scale=options.scale,
            window=options.window,
            softcap=options.softcap,
            sinks=options.sinks,
        )

    def _attend_prompts(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: LayerOptions,
        out: Tensor,
    ) -> None:
        if self._prompts:
            first = self._prompts[0].first
            out[first:] = self._attend_chunks(layer, query[first:], options)

    def _attend_chunks(self, layer: int, query: Tensor, options: LayerOptions) -> Tensor:
        """query: the rows of all prompt chunks."""
        return self._kernels.paged_attention_prefill(
            query,
            self._cache.keys[layer],
            self._cache.values[layer],
            self._tables,
            self._starts,
            self._lengths,
            scale=options.scale,
            window=options.window,
            softcap=options.softcap,
            sinks=options.sinks,
        )


def _stacked(tables: list[Tensor]) -> Tensor:
    """Block tables of different lengths as the rows of one tensor [n, longest]."""
    out = tables[0].new_zeros(len(tables), max(len(table) for table in tables))
    for row, table in zip(out, tables, strict=True):
        row[: len(table)] = table
    return out


class NativePacker(Packer):
    """Packs steps for the kernel: it skips what a row does not see, so all rows are one group."""

    def __init__(self, cache: KVCache, kernels: Kernels) -> None:
        super().__init__(cache, torch.device("cpu"))
        self._kernels = kernels

    def _batch(
        self, slots: Tensor, decodes: list[DecodeGroup], prompts: list[PromptPart]
    ) -> PagedBatch:
        return NativeBatch(self._cache, slots, decodes, prompts, kernels=self._kernels)

    def _decode_groups(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> list[DecodeGroup]:
        return [self._decode_group(slice(0, len(rows)), rows, starts)] if len(rows) else []
