"""A plan as tensors: what the model reads, and how attention maps to cache blocks.

Rules:
1. Decode rows come first and are attended together, in groups of similar length, so that one long
   sequence does not make every other one pay for its padding. Prompt chunks are attended one by
   one: a mask over all of them would cost the square of the batch.
2. Everything that does not depend on the layer is computed once per step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.request import Chunk, Plan
from millstream.model.attention import LayerOptions, attend_dense, causal_mask
from millstream.model.kv_cache import KVCache, LayerShape

_SMALLEST_GROUP = 8  # blocks; sequences up to this long share one group


@dataclass(slots=True)
class DecodeGroup:
    """Sequences of similar length that decode one token each.

    rows: their rows in the packed batch, [b] or a slice; blocks [b, n]: block tables, padded with
    the padding block; positions [b]: position of the new token; masks: by window size.
    """

    rows: Tensor | slice
    blocks: Tensor
    positions: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, *, block_size: int) -> Tensor:
        """[b, 1, 1, n * block_size], True where the row sees the key."""
        if window not in self.masks:
            total = self.blocks.shape[1] * block_size
            keys = torch.arange(total, device=self.blocks.device).unsqueeze(0)
            positions = self.positions.unsqueeze(1)
            mask = keys <= positions
            if window is not None:
                mask &= keys > positions - window
            self.masks[window] = mask[:, None, None, :]
        return self.masks[window]


@dataclass(slots=True)
class PromptPart:
    """A prompt chunk: rows first .. first + length of the batch, at positions start and on."""

    first: int
    length: int
    start: int
    blocks: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, device: torch.device) -> Tensor:
        """[length, start + length], True where the row sees the key."""
        if window not in self.masks:
            self.masks[window] = causal_mask(
                start=self.start,
                length=self.length,
                total=self.start + self.length,
                window=window,
            ).to(device)
        return self.masks[window]


class PagedBatch:
    """One step over the paged cache. Built by `pack()`, used for one forward call."""

    def __init__(
        self, cache: KVCache, slots: Tensor, decodes: list[DecodeGroup], prompts: list[PromptPart]
    ) -> None:
        self._cache = cache
        self._slots = slots
        self._decodes = decodes
        self._prompts = prompts

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        """See AttentionBatch. Writes the new keys and values, then reads what each row sees."""
        self._cache.write(layer, self._slots, key, value)
        out = query.new_empty(query.shape[0], query.shape[1], value.shape[-1])
        for group in self._decodes:
            out[group.rows] = self._attend_decode(layer, query[group.rows], group, options)
        for part in self._prompts:
            rows = slice(part.first, part.first + part.length)
            out[rows] = self._attend_prompt(
                layer, query[rows], key[rows], value[rows], part, options
            )
        return out

    def _attend_decode(
        self, layer: int, query: Tensor, group: DecodeGroup, options: LayerOptions
    ) -> Tensor:
        keys, values = self._cache.read(layer, group.blocks)
        mask = group.mask(options.window, block_size=self._cache.block_size)
        rows, heads, dim = query.shape
        if options.softcap is not None or options.sinks is not None:
            return attend_dense(query.unsqueeze(2), keys, values, mask, options).squeeze(2)
        # The query heads that share a key head become the query rows of that head: no copies.
        kv_heads = keys.shape[1]
        grouped = query.view(rows, kv_heads, heads // kv_heads, dim)
        return attend_dense(grouped, keys, values, mask, options).reshape(rows, heads, -1)

    def _attend_prompt(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        part: PromptPart,
        options: LayerOptions,
    ) -> Tensor:
        total = part.start + part.length
        if part.start == 0:
            keys, values = key.transpose(0, 1).unsqueeze(0), value.transpose(0, 1).unsqueeze(0)
        else:
            keys, values = self._cache.read(layer, part.blocks)
            keys, values = keys[:, :, :total], values[:, :, :total]
        is_plain = part.start == 0 and (options.window is None or total <= options.window)
        mask = None if is_plain else part.mask(options.window, query.device)
        query = query.transpose(0, 1).unsqueeze(0)
        return attend_dense(query, keys, values, mask, options)[0].transpose(0, 1)


class ProbeBatch:
    """Runs one sequence without a cache and notes what each layer would store."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        self.shapes[layer] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        length = query.shape[0]
        mask = causal_mask(start=0, length=length, total=length, window=options.window)
        query, key, value = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
        out = attend_dense(query, key, value, mask.to(query.device), options)
        return out[0].transpose(0, 1)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """input_ids, positions [1, T]; sampled [s]: rows that need logits; batch: for attention."""

    input_ids: Tensor
    positions: Tensor
    sampled: Tensor
    batch: PagedBatch


def pack(plan: Plan, cache: KVCache, device: torch.device) -> ModelInput:
    """Lays the tokens of a plan out in one row."""
    num_decodes = 0
    while num_decodes < len(plan.chunks) and len(plan.chunks[num_decodes].tokens) == 1:
        num_decodes += 1
    tokens: list[int] = []
    positions: list[NDArray[np.int64]] = []
    slots: list[NDArray[np.int64]] = []
    sampled: list[int] = []
    prompts: list[PromptPart] = []
    for index, chunk in enumerate(plan.chunks):
        length = len(chunk.tokens)
        table = np.array(chunk.block_table, dtype=np.int64)
        where = np.arange(chunk.start, chunk.start + length)
        if index >= num_decodes:
            blocks = _tensor(table[: -(-(chunk.start + length) // cache.block_size)], device)
            prompts.append(PromptPart(len(tokens), length, chunk.start, blocks.unsqueeze(0)))
        tokens += chunk.tokens
        positions.append(where)
        slots.append(table[where // cache.block_size] * cache.block_size + where % cache.block_size)
        if chunk.sampling is not None:
            sampled.append(len(tokens) - 1)
    decodes = _decode_groups(plan.chunks[:num_decodes], cache, device)
    return ModelInput(
        input_ids=_tensor(np.array(tokens), device).unsqueeze(0),
        positions=_tensor(np.concatenate(positions), device).unsqueeze(0),
        sampled=_tensor(np.array(sampled, dtype=np.int64), device),
        batch=PagedBatch(cache, _tensor(np.concatenate(slots), device), decodes, prompts),
    )


def _decode_groups(
    chunks: tuple[Chunk, ...], cache: KVCache, device: torch.device
) -> list[DecodeGroup]:
    block_size = cache.block_size
    members: dict[int, list[int]] = {}
    for row, chunk in enumerate(chunks):
        num_blocks = chunk.start // block_size + 1
        members.setdefault(max(num_blocks - 1, _SMALLEST_GROUP - 1).bit_length(), []).append(row)
    groups = []
    for rows in members.values():
        starts = np.array([chunks[row].start for row in rows], dtype=np.int64)
        width = int(starts.max()) // block_size + 1
        blocks = np.full((len(rows), width), cache.padding_block, dtype=np.int64)
        for index, row in enumerate(rows):
            table = chunks[row].block_table[:width]
            blocks[index, : len(table)] = table
        is_all = len(members) == 1
        index_of = slice(0, len(rows)) if is_all else _tensor(np.array(rows), device)
        groups.append(DecodeGroup(index_of, _tensor(blocks, device), _tensor(starts, device)))
    return groups


def _tensor(array: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
