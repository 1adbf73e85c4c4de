"""Attention in plain torch, on any device: each sequence's keys are gathered from their blocks.

Rules:
1. Decode rows are attended in groups of similar length, so that one long sequence does not make
   every other one pay for its padding. Prompt chunks are attended one by one: a mask over all of
   them would cost the square of the batch.
2. Keys that a row does not see are masked. They are finite (see `kv_cache`), so that they count for
   nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.model.attention import LayerOptions, Reach, attend_dense, causal_mask
from millstream.model.paging.kv_cache import read_blocks
from millstream.model.paging.step import Span
from millstream.model.transfers import upload

_SMALLEST_GROUP = 8  # blocks; sequences up to this long share one group
_POWERS = 2 ** np.arange(40)


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decode rows of similar length. rows: their numbers, [b] or a slice; tables [b, blocks]: their
    block tables as far as the longest reaches; positions [b]: theirs. Keeps a mask per reach."""

    rows: Tensor | slice
    tables: Tensor
    positions: Tensor
    _masks: dict[Reach, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def mask(self, reach: Reach, block_size: int) -> Tensor:
        """[b, 1, 1, blocks * block_size], True where the row sees the key."""
        mask = self._masks.get(reach)
        if mask is None:
            total = self.tables.shape[1] * block_size
            keys = torch.arange(total, device=self.tables.device).unsqueeze(0)
            positions = self.positions.unsqueeze(1)
            mask = keys <= positions
            if (first := reach.first(positions)) is not None:
                mask &= keys >= first
            mask = self._masks[reach] = mask[:, None, None, :]
        return mask


class GatheredBackend:
    """The AttentionBackend that works on every device and with all options: the last one asked."""

    name = "sdpa-paged"
    is_capturable = False

    def handles(self, options: LayerOptions) -> bool:
        """Always True."""
        return True

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """One token of each of n sequences attends: query [n, heads, d] -> [n, heads, dv]."""
        size = keys.shape[1]
        groups = span.once("groups", lambda: decode_groups(span, similar_lengths(span, size), size))
        if len(groups) == 1:
            return self._attend_group(query, keys, values, groups[0], options)
        out = query.new_empty(*query.shape[:2], values.shape[3])
        for group in groups:
            out[group.rows] = self._attend_group(query[group.rows], keys, values, group, options)
        return out

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The T tokens of prompt chunks attend: query [T, heads, d] -> [T, heads, dv]."""
        host, out = span.on_host, []
        chunks = torch.split(query, host.lengths.tolist())
        for number, (rows, start) in enumerate(zip(chunks, host.starts.tolist(), strict=True)):
            total = start + len(rows)
            table = span.tables[number : number + 1, : -(-total // keys.shape[1])]
            mask, reach = None, options.reach  # attend_dense() has a causal mask
            if start or min(reach.window or total, reach.chunk or total) < total:
                make = partial(_prompt_mask, start, len(rows), reach, query.device)
                mask = span.once((number, reach), make)
            attended = attend_dense(
                rows.transpose(0, 1).unsqueeze(0),
                read_blocks(keys, table)[:, :, :total],
                read_blocks(values, table)[:, :, :total],
                mask,
                options,
            )
            out.append(attended[0].transpose(0, 1))
        return torch.cat(out)

    def _attend_group(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        group: DecodeGroup,
        options: LayerOptions,
    ) -> Tensor:
        """query [b, heads, d]: the group's rows; the rest as in decode() -> [b, heads, dv]."""
        mask = group.mask(options.reach, keys.shape[1])
        keys, values = read_blocks(keys, group.tables), read_blocks(values, group.tables)
        rows, heads, dim = query.shape
        if options.softcap is not None or options.sinks is not None:
            return attend_dense(query.unsqueeze(2), keys, values, mask, options).squeeze(2)
        # The query heads that share a key head become the query rows of that head: no copies.
        kv_heads = keys.shape[1]
        grouped = query.view(rows, kv_heads, heads // kv_heads, dim)
        return attend_dense(grouped, keys, values, mask, options).reshape(rows, heads, -1)


def similar_lengths(span: Span, block_size: int) -> NDArray[np.int64]:
    """A number for each decode row, [n]: those with the same one are attended together."""
    num_full = span.on_host.starts // block_size
    return np.searchsorted(_POWERS, np.maximum(num_full, _SMALLEST_GROUP - 1), side="right")


def decode_groups(span: Span, number_of: NDArray[np.int64], block_size: int) -> list[DecodeGroup]:
    """The decode rows of `span`, those with the same number [n] together."""
    if (number_of == number_of[0]).all():
        return [DecodeGroup(slice(0, len(number_of)), span.tables, span.starts)]
    groups = []
    for number in np.unique(number_of):
        members = np.flatnonzero(number_of == number)
        rows = upload(torch.from_numpy(members), span.tables.device)
        width = int(span.on_host.starts[members].max()) // block_size + 1
        groups.append(DecodeGroup(rows, span.tables[rows, :width], span.starts[rows]))
    return groups


def _prompt_mask(start: int, length: int, reach: Reach, device: torch.device) -> Tensor:
    """[length, start + length], True where a chunk's row sees the key."""
    total = start + length
    return causal_mask(start=start, length=length, total=total, reach=reach).to(device)
