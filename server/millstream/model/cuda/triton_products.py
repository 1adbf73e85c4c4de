"""Products of a weight with few rows, launched: one kernel, and one more if there are parts."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from millstream.model.cuda import triton_product_kernels as kernels
from millstream.model.cuda.dependent_launch import launch_options
from millstream.model.cuda.product_tiles import ProductTile

_SMALLEST_DOT = 16
_JOINED = 1024  # results of a program that joins parts


def multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: ProductTile, *, overlaps: bool = False
) -> Tensor:
    """Computes `torch.nn.functional.linear()`: x [r, k], weight [n, k], bias [n] or None -> [r, n].

    x, weight, bias: of one dtype, contiguous, from addresses that are divisible by 16 (another
    address is another kernel). Sums are float32. The result's bits depend on the row, the weight,
    the tile and whether there are up to 1, 16 or more rows. overlaps: kernels begin before the one
    before them ends, as `dependent_launch` says.
    """
    (rows, inputs), outputs = x.shape, len(weight)
    out = x.new_empty(rows, outputs)
    is_split, has_bias = tile.parts > 1, bias is not None
    sums = x.new_empty(rows, tile.parts, outputs, dtype=torch.float32) if is_split else out
    kernels.product_tile[(triton.cdiv(outputs, tile.channels), tile.parts)](
        x=x,
        weight=weight,
        bias=out if bias is None else bias,
        out=sums,
        rows=rows,
        outputs=outputs,
        inputs=inputs,
        ROWS_PAD=1 if rows == 1 else max(_SMALLEST_DOT, triton.next_power_of_2(rows)),
        CHANNELS=tile.channels,
        DEPTH=tile.depth,
        STAGES=tile.stages,
        IS_EVEN=inputs % (tile.depth * tile.parts) == 0,
        HAS_BIAS=has_bias and not is_split,
        num_warps=tile.warps,
        **launch_options(overlaps=overlaps),
    )
    if is_split:
        kernels.join_product[(rows, triton.cdiv(outputs, _JOINED))](
            sums=sums,
            bias=out if bias is None else bias,
            out=out,
            parts=tile.parts,
            outputs=outputs,
            TILE=_JOINED,
            HAS_BIAS=has_bias,
            **launch_options(overlaps=overlaps),
        )
    return out
