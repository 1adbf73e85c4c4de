"""Products of token rows by a matrix, in tiles of row counts that give the same bits.

How a kernel orders the sums of a product depends on how many rows it gets, so a row rounds
differently beside other rows. It does not depend on what the other rows hold. So rows are computed
in tiles, filled up with zeros, of sizes for which this processor has shown that it treats a row the
same wherever in the tile it stands.

How that is shown. A trial row holds some numbers and their negatives, spread over its width in a
random order; a trial matrix holds, at the same places, some numbers twice. The exact product of the
two is zero, so what a kernel gives for it is the rounding of its sums and nothing else, and two
kernels that sum in different orders give different results nearly always. A tile full of one trial
row must give the same in each of its rows, and tiles of two sizes must give the same as each other.

Rules:
1. Sizes are tried on a matrix of the same shape, strides, dtype and alignment as the model's, since
   libraries choose their kernels by these.
2. The smallest of `_BASES` in which it does not matter where a row stands sets the bits; other
   sizes are used where they give the same. Without one, the model is refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

from millstream.errors import StartupError

Product = Callable[[Tensor], Tensor]
"""A product by a matrix: rows [..., n, in] -> [..., n, out]."""

_BASES = (16, 32, 64)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_NUM_VECTORS = 2
_ALIGNMENT = 64  # bytes; kernels may treat the ends of unaligned memory in another way


def find_sizes(product: Product, vectors: Tensor) -> tuple[int, ...]:
    """Row counts, ascending, that give every row the same bits.

    product: by a trial_matrix(). vectors: trial_rows(), [n, ..., 1, in]. Raises StartupError if
    there are none.
    """

    def results(size: int) -> Tensor | None:
        """The product of each vector [n, ..., 1, out], if all `size` rows of a tile give it."""
        shape = (*vectors.shape[1:-2], size, vectors.shape[-1])
        out = torch.stack([product(vector.expand(shape).contiguous()) for vector in vectors])
        first = out[..., :1, :]
        return first if torch.equal(out, first.expand_as(out)) else None

    for base in _BASES:
        expected = results(base)
        if expected is not None:
            break
    else:
        raise StartupError(
            "--batch-invariant: on this processor the matrix products of this model depend on "
            "where in a batch a row stands; serve it without the flag"
        )
    sizes = []
    for size in _SIZES:
        actual = results(size)
        if actual is not None and torch.equal(actual, expected):
            sizes.append(size)
    return tuple(sizes)


def multiply(product: Product, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The product of rows [..., n, in] -> [..., n, out], in tiles of these sizes (ascending)."""
    count = rows.shape[-2]
    if count == 0 or (count in sizes and is_aligned(rows)):
        return product(rows)
    pieces, start = [], 0
    while start < count:
        size = _next_size(count - start, sizes)
        end = min(start + size, count)
        # The product of fewer rows than `size` is that of a whole tile, cut.
        piece = product(_tile(rows[..., start:end, :], size))
        pieces.append(piece[..., : end - start, :])
        start = end
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-2)


def is_aligned(tensor: Tensor) -> bool:
    """Whether the tensor is contiguous and begins where fresh memory does, at 64 bytes."""
    return tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT == 0


def alignment(tensor: Tensor) -> int:
    """The distance of the tensor's first byte from the last aligned address, in bytes."""
    return tensor.data_ptr() % _ALIGNMENT


def trial_rows(width: int, *, lead: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Vectors [n, *lead, 1, width] whose exact product with a `trial_matrix()` is zero."""
    generator = torch.Generator().manual_seed(width)
    half = torch.randn(_NUM_VECTORS, *lead, 1, width // 2, generator=generator)
    return _scatter(half, -half, width).to(dtype)


def trial_matrix(like: Tensor, *, contracted: int) -> Tensor:
    """A matrix [..., in, out] or [out, in] with the shape, strides, dtype and alignment of `like`.

    contracted: the dimension over which products sum.
    """
    full_shape = like.shape
    for dimension, stride in enumerate(like.stride()):
        if stride == 0:  # the same memory again and again
            like = like.narrow(dimension, 0, 1)
    shape = list(like.shape)
    width = shape.pop(contracted)
    generator = torch.Generator().manual_seed(width)
    # A few thousand different columns are enough; kernels do not look at values.
    period = torch.randn(509, width // 2, generator=generator)
    count = int(torch.Size(shape).numel())
    half = period.repeat(-(-count // len(period)), 1)[:count]
    values = _scatter(half, half, width).view(*shape, width).movedim(-1, contracted)
    size = sum((n - 1) * stride for n, stride in zip(like.shape, like.stride(), strict=True)) + 1
    offset = alignment(like) // like.element_size()
    memory = torch.zeros(size + offset, dtype=like.dtype)
    matrix = memory[offset:].as_strided(like.shape, like.stride())
    return matrix.copy_(values).expand(full_shape)


def _scatter(first: Tensor, second: Tensor, width: int) -> Tensor:
    """Spreads two halves over `width` columns, in an order that depends on the width only."""
    order = torch.randperm(width, generator=torch.Generator().manual_seed(width))
    out = first.new_zeros(*first.shape[:-1], width)
    half = first.shape[-1]
    out[..., order[:half]] = first
    out[..., order[half : 2 * half]] = second
    return out


def _next_size(count: int, sizes: tuple[int, ...]) -> int:
    """The tile for the next of `count` rows: the largest that is filled, or one a bit larger."""
    index = bisect_left(sizes, count)
    if index < len(sizes) and (index == 0 or sizes[index] <= max(count * 1.25, _BASES[0])):
        return sizes[index]
    return sizes[max(index - 1, 0)]


def _tile(rows: Tensor, size: int) -> Tensor:
    """`rows`, filled up with zeros to `size`, in aligned memory."""
    count = rows.shape[-2]
    if count == size:
        return rows if is_aligned(rows) else rows.clone(memory_format=torch.contiguous_format)
    tile = rows.new_zeros(*rows.shape[:-2], size, rows.shape[-1])
    tile[..., :count, :] = rows
    return tile
