"""Paged attention in Triton: one token per sequence, and prompt chunks.

Rules:
1. What the kernels compute is written in `model/reference.py`: same meaning, on any device that
   Triton knows.
2. Decode splits the keys of a row among programs, so that few long sequences keep the device busy
   (https://pytorch.org/blog/flash-decoding/); a second kernel joins the parts.
3. What differs from step to step is of one kind for Triton, which compiles a kernel for each kind
   that it meets: addresses are divisible by 16 always, strides do not count. Only the number of
   parts makes other kernels, and `warm_up` meets all of them.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cuda import triton_kernels as kernels
from millstream.model.cuda.dependent_launch import launch_options

_ROWS = 64  # query rows of a program, for prompts
_SMALLEST_DOT = 16
_TILE_BYTES = 32 * 1024  # keys of one step of a loop
_PROGRAMS = 512  # enough for every multiprocessor of a large device, a few times over
_LARGEST_SPLIT = 64
_ALIGNMENT = 16  # bytes


def decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    positions: Tensor,
    options: LayerOptions,
    *,
    overlaps: bool = False,
) -> Tensor:
    """Computes `reference.paged_attention_decode()`: query [b, heads, d] -> [b, heads, dv].

    tables [b, n] and positions [b]: int32 or int64. The last dimensions are contiguous. overlaps:
    the kernels are launched before the one before them ends, as `dependent_launch` says.
    """
    rows, heads, dim = query.shape
    _, page, kv_heads, width = value_cache.shape
    query = _packed_heads(query)
    splits = num_splits(rows * kv_heads)
    parts = query.new_empty((rows, heads, splits, width), dtype=torch.float32)
    bests, totals = (query.new_empty((rows, heads, splits), dtype=torch.float32) for _ in range(2))
    out = query.new_empty(rows, heads, width)
    sizes = {**_sizes(dim, width, query.dtype), "SPLITS": splits}
    group = heads // kv_heads
    kernels.decode_parts[(rows, kv_heads, splits)](
        query=query,
        keys=key_cache,
        values=value_cache,
        tables=tables,
        positions=positions,
        parts=parts,
        bests=bests,
        totals=totals,
        query_stride=query.stride(0),
        table_stride=tables.stride(0),
        scale=options.scale,
        softcap=options.softcap or 1.0,
        WINDOW=options.window or 0,
        CHUNK=options.chunk or 0,
        SOFTCAP=options.softcap is not None,
        PAGE=page,
        KV_HEADS=kv_heads,
        GROUP=group,
        GROUP_PAD=_padded(group),
        **sizes,
        **launch_options(overlaps=overlaps),
    )
    sinks = options.sinks
    kernels.join_parts[(rows, heads)](
        parts=parts,
        bests=bests,
        totals=totals,
        sinks=out if sinks is None else sinks,
        out=out,
        HEADS=heads,
        SINKS=sinks is not None,
        WIDTH=width,
        WIDTH_PAD=sizes["WIDTH_PAD"],
        SPLITS=splits,
        **launch_options(overlaps=overlaps),
    )
    return out


def prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    *,
    starts: Tensor,
    firsts: Tensor,
    options: LayerOptions,
) -> Tensor:
    """Computes `reference.paged_attention_prefill()`: query [T, heads, d] -> [T, heads, dv].

    tables [c, n] int32 or int64; starts [c]: position of each chunk's first token; firsts [c + 1]:
    row of each chunk's first token, and T. The last dimensions are contiguous. A chunk may be
    empty. One whose positions are all negative sees no keys, and its results are zero.
    """
    tokens, heads, dim = query.shape
    _, page, kv_heads, width = value_cache.shape
    query = _packed_heads(query)
    out = query.new_empty(tokens, heads, width)
    sinks = options.sinks
    chunks = len(starts)
    kernels.prefill_tile[(tokens // _ROWS + chunks, heads)](
        query=query,
        keys=key_cache,
        values=value_cache,
        tables=tables,
        starts=starts,
        firsts=firsts,
        sinks=out if sinks is None else sinks,
        out=out,
        query_stride=query.stride(0),
        table_stride=tables.stride(0),
        num_chunks=chunks,
        scale=options.scale,
        softcap=options.softcap or 1.0,
        WINDOW=options.window or 0,
        CHUNK=options.chunk or 0,
        SOFTCAP=options.softcap is not None,
        SINKS=sinks is not None,
        PAGE=page,
        HEADS=heads,
        KV_HEADS=kv_heads,
        ROWS=_ROWS,
        **_sizes(dim, width, query.dtype),
    )
    return out


def num_splits(programs: int) -> int:
    """How many parts each row's keys are cut into: a power of two, 1 where `programs` (rows times
    key heads) keep the device busy without."""
    wanted = triton.next_power_of_2(max(1, _PROGRAMS // programs))
    return int(min(wanted, _LARGEST_SPLIT))


def _sizes(dim: int, width: int, dtype: torch.dtype) -> dict[str, int]:
    dim_pad, width_pad = _padded(dim), _padded(width)
    tile = _TILE_BYTES // (dtype.itemsize * max(dim_pad, width_pad))
    return {
        "DIM": dim,
        "DIM_PAD": dim_pad,
        "WIDTH": width,
        "WIDTH_PAD": width_pad,
        "TILE": min(128, max(_SMALLEST_DOT, tile)),
        "num_stages": 2,  # more of wide float32 heads than that do not fit into shared memory
    }


def _padded(number: int) -> int:
    return int(max(_SMALLEST_DOT, triton.next_power_of_2(number)))


def _packed_heads(query: Tensor) -> Tensor:
    """query [T, heads, d] with the heads of a token side by side, from an address as of rule 3;
    tokens may lie apart."""
    is_packed = query.stride(-1) == 1 and query.stride(1) == query.shape[2]
    if is_packed and query.data_ptr() % _ALIGNMENT == 0:
        return query
    return query.clone(memory_format=torch.contiguous_format)
