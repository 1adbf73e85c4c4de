"""A plan as tensors for a CUDA device: packed on the host, sent as one copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.attention import LayerOptions
from millstream.model.cuda.backends import Backend, Span
from millstream.model.cuda.staging import Staging
from millstream.model.paging.batch import (
    DecodeGroup,
    Layout,
    ModelInput,
    Packer,
    PagedBatch,
    PromptPart,
)
from millstream.model.paging.kv_cache import KVCache


class CudaBatch(PagedBatch):
    """A step whose rows are attended by the first backend that can, and else as everywhere."""

    def __init__(
        self,
        cache: KVCache,
        slots: Tensor,
        *,
        backends: Sequence[Backend],
        decodes: Span | None,
        prompts: Span | None,
        parts: list[PromptPart],
    ) -> None:
        """parts: of `prompts`. Decode rows come first."""
        groups: list[DecodeGroup] = []
        self._num_decodes = 0
        if decodes is not None:
            self._num_decodes = len(decodes.starts)
            members = slice(0, self._num_decodes)
            groups = [DecodeGroup(members, decodes.tables, decodes.starts)]
        super().__init__(cache, slots, groups, parts)
        self._backends = backends
        self._decode_span, self._prompt_span = decodes, prompts

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: LayerOptions
    ) -> Tensor:
        for backend in self._backends:
            if backend.handles(options):
                return self._attend_by(backend, layer, query, options)
        return super()._attend(layer, query, key, value, options)

    def _attend_by(
        self, backend: Backend, layer: int, query: Tensor, options: LayerOptions
    ) -> Tensor:
        caches = self._cache.keys[layer], self._cache.values[layer]
        count, parts = self._num_decodes, []
        if self._decode_span is not None:
            parts.append(backend.decode(query[:count], *caches, self._decode_span, options))
        if self._prompt_span is not None:
            parts.append(backend.prefill(query[count:], *caches, self._prompt_span, options))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class CudaPacker(Packer):
    """Lays plans out in the memory of `staging`."""

    def __init__(
        self,
        cache: KVCache,
        device: torch.device,
        *,
        backends: Sequence[Backend],
        max_tokens: int,
        max_rows: int,
        max_blocks: int,
    ) -> None:
        """The largest step: its tokens, its sequences, and the blocks of the longest of those."""
        super().__init__(cache, device)
        self._backends = backends
        # Four numbers a token, six a row with its alignment, and the block tables.
        num_bytes = 8 * (4 * max_tokens + 6 * max_rows + 64) + 4 * max_rows * max_blocks
        self.staging = Staging(device, num_bytes)

    def pack(self, plan: Plan) -> ModelInput:
        """Tensors of one step; good until the next call."""
        step, staging = self._lay_out(plan), self.staging
        staging.begin()
        ids, positions = staging.put(step.token_ids), staging.put(step.positions)
        slots, wanted = staging.put(step.slots), staging.put(step.wanted)
        count = step.num_decodes
        decodes = self._span(step, slice(0, count))
        prompts = self._span(step, slice(count, len(step.rows)))
        parts = [] if prompts is None else _parts(step, count, prompts.tables)
        staging.flush()
        return ModelInput(
            input_ids=ids.unsqueeze(0),
            positions=positions.unsqueeze(0),
            wanted=wanted,
            batch=CudaBatch(
                self._cache,
                slots,
                backends=self._backends,
                decodes=decodes,
                prompts=prompts,
                parts=parts,
            ),
        )

    def pack_decodes(self, plan: Plan, count: int) -> tuple[Tensor, Tensor]:
        """A plan of single tokens, with rows for nobody up to `count` of them.

        Token ids, positions and slots [3, count] int64, and block tables [count, n] int32.
        """
        step = self._lay_out(plan)
        size = len(step.rows)
        inputs = np.zeros((3, count), np.int64)
        inputs[:, :size] = step.token_ids, step.positions, step.slots
        inputs[2, size:] = self._cache.spare_block * self._cache.block_size
        width = self._num_blocks(int(step.starts.max()))
        tables = np.full((count, width), self._cache.padding_block, np.int32)
        tables[:size] = self._tables.blocks(step.rows, width)
        self.staging.begin()
        packed = self.staging.put(inputs), self.staging.put(tables)
        self.staging.flush()
        return packed

    def _span(self, step: Layout, chunks: slice) -> Span | None:
        rows, lengths = step.rows[chunks], step.lengths[chunks]
        if not len(rows):
            return None
        ends = step.starts[chunks] + lengths
        tables = self._tables.blocks(rows, self._num_blocks(int(ends.max()) - 1))
        put = self.staging.put
        return Span(
            put(tables.astype(np.int32)),
            put(step.starts[chunks]),
            put(ends.astype(np.int32)),
            put(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
            longest=int(lengths.max()),
            longest_context=int(ends.max()),
        )


def _parts(step: Layout, first: int, tables: Tensor) -> list[PromptPart]:
    """The prompt chunks from number `first` on, for layers that no backend knows."""
    return [
        PromptPart(int(end - length), int(length), int(start), table.unsqueeze(0))
        for table, start, length, end in zip(
            tables, step.starts[first:], step.lengths[first:], step.ends[first:], strict=True
        )
    ]
