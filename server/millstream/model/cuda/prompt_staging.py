"""A step with prompt chunks, filled up to one of a fixed size and sent to where a graph reads it.

Rules:
1. Of a size everything but the block tables lies in the same place in each step: it is put first,
   and the memory on the device never moves. So a graph reads what is staged where it lies.
2. A decode row for nobody is at position 0 of the padding block. The rows behind the last prompt
   are a chunk for nobody: its positions are negative, so it sees no keys, and its block table is
   never read. Both store their keys in the spare block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from millstream.model.cuda.prompt_sizes import StepSize
from millstream.model.cuda.staging import Staging
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import Layout
from millstream.model.paging.step import HostSpan


@dataclass(frozen=True, slots=True)
class StagedStep:
    """The tensors of a step of a size, on the device, good until the next one is staged.

    token_ids, positions, slots [num_rows] int64; sources [decodes] int64: as given to
    `stage_step()`, -1 for rows for nobody; wanted [num_wanted] int64: rows that need logits, filled
    up with row 0; decode_ends [decodes] int32; starts [chunks + 1] int64, ends [chunks + 1] and
    firsts [chunks + 2] int32: of the prompts' span, and of the chunk for nobody. Block tables,
    int32: decode_tables [decodes, n], prompt_tables [c, m] of the chunks that the step has.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    sources: Tensor
    wanted: Tensor
    decode_ends: Tensor
    starts: Tensor
    ends: Tensor
    firsts: Tensor
    decode_tables: Tensor
    prompt_tables: Tensor


def stage_step(
    layout: Layout | None,
    size: StepSize,
    *,
    cache: KVCache,
    staging: Staging,
    sources: NDArray[np.int64] | None = None,
) -> StagedStep:
    """Sends a step, filled up to a size that holds it. Without a layout all rows are for nobody.

    sources: a number for each decode row of the layout, which is sent with it; -1 by default.
    """
    prompts = None if layout is None else layout.prompts
    span = fill_up(prompts, tokens=size.tokens, chunks=size.chunks)
    inputs, wanted = _fill_up_rows(layout, size, spare_slot=cache.spare_block * cache.block_size)
    all_sources = np.full(size.decodes, -1)
    if sources is not None:
        all_sources[: len(sources)] = sources
    staging.begin()
    put = staging.put
    step = StagedStep(
        token_ids=put(inputs[0]),
        positions=put(inputs[1]),
        slots=put(inputs[2]),
        sources=put(all_sources),
        wanted=put(wanted),
        decode_ends=put((inputs[1, : size.decodes] + 1).astype(np.int32)),
        starts=put(span.starts),
        ends=put(span.ends),
        firsts=put(span.firsts),
        decode_tables=put(_decode_tables(layout, size, padding_block=cache.padding_block)),
        prompt_tables=put(span.tables),
    )
    staging.flush()
    return step


def _fill_up_rows(
    layout: Layout | None, size: StepSize, *, spare_slot: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids, positions and slots [3, num_rows], and the rows that need logits [num_wanted]."""
    inputs, wanted = np.zeros((3, size.num_rows), np.int64), np.zeros(size.num_wanted, np.int64)
    inputs[2] = spare_slot
    if layout is not None:
        count = 0 if layout.decodes is None else len(layout.decodes.starts)
        shift = size.decodes - count  # by so many rows the prompts begin later
        end = len(layout.token_ids) + shift
        for filled, numbers in zip(inputs, layout[:3], strict=True):
            filled[:count], filled[size.decodes : end] = numbers[:count], numbers[count:]
        wanted[: len(layout.wanted)] = layout.wanted + np.where(layout.wanted < count, 0, shift)
    return inputs, wanted


def _decode_tables(
    layout: Layout | None, size: StepSize, *, padding_block: int
) -> NDArray[np.int32]:
    """Block tables [decodes, n]: of rows for nobody, the padding block."""
    if layout is None or layout.decodes is None:
        return np.full((size.decodes, 1), padding_block, np.int32)
    count, width = layout.decodes.tables.shape
    tables = np.full((size.decodes, width), padding_block, np.int32)
    tables[:count] = layout.decodes.tables
    return tables


def fill_up(prompts: HostSpan | None, *, tokens: int, chunks: int) -> HostSpan:
    """The span with more rows and sequences: `tokens` rows of `chunks` + 1 sequences.

    The rows that are added are those of the first sequence that is, which is for nobody; the others
    have none. Block tables are left as they are. Without `prompts` all rows are for nobody.
    """
    starts = np.full(chunks + 1, -tokens)
    firsts = np.full(chunks + 2, tokens, np.int32)
    firsts[0] = 0
    tables = np.zeros((0, 1), np.int32)
    if prompts is not None:
        starts[: len(prompts.starts)] = prompts.starts
        firsts[: len(prompts.firsts)] = prompts.firsts
        tables = prompts.tables
    ends = (starts + np.diff(firsts)).astype(np.int32)
    longest_context = max(int(ends.max()), 1)
    return HostSpan(tables, starts, ends, firsts, tokens, longest_context)
