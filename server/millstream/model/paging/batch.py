"""A plan as tensors: what the model reads, and how attention maps to cache blocks.

Rules:
1. Decode rows come first and are attended together, in groups of similar length, so that one long
   sequence does not make every other one pay for its padding. Prompt chunks are attended one by
   one: a mask over all of them would cost the square of the batch.
2. Everything that does not depend on the layer is computed once per step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.attention import LayerOptions, attend_dense, causal_mask
from millstream.model.paging.block_tables import BlockTables
from millstream.model.paging.kv_cache import KVCache

_SMALLEST_GROUP = 8  # blocks; sequences up to this long share one group
_POWERS = 2 ** np.arange(40)


Numbers = NDArray[np.int64]


class Layout(NamedTuple):
    """Of chunks: rows (of the block tables), starts, lengths, ends (of their rows in the batch); of
    tokens: token_ids, positions, slots; wanted: rows that need logits, see ModelInput.
    """

    rows: Numbers
    starts: Numbers
    lengths: Numbers
    ends: Numbers
    token_ids: Numbers
    positions: Numbers
    slots: Numbers
    wanted: Numbers

    @property
    def num_decodes(self) -> int:
        """Chunks of one token; they come first."""
        return int((np.append(self.lengths, 0) != 1).argmax())


def lay_out(plan: Plan, tables: BlockTables, block_size: int) -> Layout:
    """The plan's arrays. Brings `tables` up to date with its chunks."""
    chunks = plan.chunks
    rows = tables.rows(chunks)
    starts = np.array([chunk.start for chunk in chunks], dtype=np.int64)
    if all(len(chunk.tokens) == 1 and chunk.is_last for chunk in chunks):  # nothing is scored
        token_ids = np.array([chunk.tokens[0] for chunk in chunks], dtype=np.int64)
        return _decode_layout(rows, starts, token_ids, tables, block_size)
    lengths = np.array([len(chunk.tokens) for chunk in chunks], dtype=np.int64)
    ends = np.cumsum(lengths)
    num_tokens = int(ends[-1])
    positions = np.arange(num_tokens) + np.repeat(starts - (ends - lengths), lengths)
    blocks = tables.blocks_at(np.repeat(rows, lengths), positions // block_size)
    tokens = chain.from_iterable([chunk.tokens for chunk in chunks])
    is_sampled = np.array([chunk.sampling is not None for chunk in chunks], dtype=np.bool_)
    scored = [
        np.arange(chunk.scored.start, chunk.scored.stop) + end - (chunk.start + length)
        for chunk, end, length in zip(chunks, ends, lengths, strict=True)
        if chunk.score_from is not None
    ]
    return Layout(
        *(rows, starts, lengths, ends, np.fromiter(tokens, np.int64, num_tokens), positions),
        slots=blocks * block_size + positions % block_size,
        wanted=np.concatenate([ends[is_sampled] - 1, *scored]),
    )


def _decode_layout(
    rows: Numbers, starts: Numbers, token_ids: Numbers, tables: BlockTables, block_size: int
) -> Layout:
    """Of a step in which every chunk is one token and is sampled: most steps are."""
    numbers = np.arange(len(rows) + 1)
    return Layout(
        *(rows, starts, np.ones_like(rows), numbers[1:], token_ids, starts),
        slots=tables.blocks_at(rows, starts // block_size) * block_size + starts % block_size,
        wanted=numbers[:-1],
    )


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
        return self._attend(layer, query, key, value, options)

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        """The same once the new keys and values are in the cache."""
        if not self._prompts and len(self._decodes) == 1:
            return self._attend_decode(layer, query, self._decodes[0], options)
        out = query.new_empty(query.shape[0], query.shape[1], value.shape[-1])
        for group in self._decodes:
            out[group.rows] = self._attend_decode(layer, query[group.rows], group, options)
        self._attend_prompts(layer, query, key, value, options, out)
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

    def _attend_prompts(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: LayerOptions,
        out: Tensor,
    ) -> None:
        """Fills the rows of `out` that belong to prompt chunks."""
        for part in self._prompts:
            rows = slice(part.first, part.first + part.length)
            out[rows] = self._attend_prompt(
                layer, query[rows], key[rows], value[rows], part, options
            )

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


@dataclass(frozen=True, slots=True)
class ModelInput:
    """input_ids, positions [1, T]; wanted [s + c]: rows that need logits, first those that are
    sampled, then those that score the prompt; batch: for attention."""

    input_ids: Tensor
    positions: Tensor
    wanted: Tensor
    batch: PagedBatch


class Packer:
    """Lays the tokens of each plan out in one row. Made once for a cache.

    Mutated by its own `pack()` only: what it knows of block tables stays from step to step.
    """

    def __init__(self, cache: KVCache, device: torch.device) -> None:
        self._cache = cache
        self._device = device
        self._tables = BlockTables(cache.padding_block)

    def pack(self, plan: Plan) -> ModelInput:
        """Tensors of one step; good until the next call."""
        step = self._lay_out(plan)
        rows, starts, num_decodes = step.rows, step.starts, step.num_decodes
        decodes = self._decode_groups(rows[:num_decodes], starts[:num_decodes])
        prompts = [
            self._prompt_part(rows[i : i + 1], starts[i], step.lengths[i], step.ends[i])
            for i in range(num_decodes, len(rows))
        ]
        return ModelInput(
            input_ids=self._tensor(step.token_ids).unsqueeze(0),
            positions=self._tensor(step.positions).unsqueeze(0),
            wanted=self._tensor(step.wanted),
            batch=self._batch(self._tensor(step.slots), decodes, prompts),
        )

    def _lay_out(self, plan: Plan) -> Layout:
        return lay_out(plan, self._tables, self._cache.block_size)

    def _batch(
        self, slots: Tensor, decodes: list[DecodeGroup], prompts: list[PromptPart]
    ) -> PagedBatch:
        return PagedBatch(self._cache, slots, decodes, prompts)

    def _group_of(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decode rows at positions `starts` with the same number are attended together."""
        num_full = starts // self._cache.block_size
        return np.searchsorted(_POWERS, np.maximum(num_full, _SMALLEST_GROUP - 1), side="right")

    def _num_blocks(self, start: int) -> int:
        """Blocks read for a group or a chunk whose last position is `start`."""
        return start // self._cache.block_size + 1

    def _decode_groups(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> list[DecodeGroup]:
        if not len(rows):
            return []
        group_of = self._group_of(starts)
        if (group_of == group_of[0]).all():
            return [self._decode_group(slice(0, len(rows)), rows, starts)]
        groups = []
        for number in np.unique(group_of):
            members = np.flatnonzero(group_of == number)
            groups.append(self._decode_group(self._tensor(members), rows[members], starts[members]))
        return groups

    def _decode_group(
        self, members: Tensor | slice, rows: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> DecodeGroup:
        blocks = self._tables.blocks(rows, self._num_blocks(int(starts.max())))
        return DecodeGroup(members, self._tensor(blocks), self._tensor(starts))

    def _prompt_part(self, row: NDArray[np.int64], start: int, length: int, end: int) -> PromptPart:
        blocks = self._tables.blocks(row, self._num_blocks(int(start + length) - 1))
        return PromptPart(int(end - length), int(length), int(start), self._tensor(blocks))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def pack(plan: Plan, cache: KVCache, device: torch.device) -> ModelInput:
    """One plan, with nothing kept for the next."""
    return Packer(cache, device).pack(plan)
