"""The ways in which a product of a weight with few rows can be cut into programs."""

from __future__ import annotations

from typing import NamedTuple

MATRIX_ROWS = (4, 16, 32)
ROW_COUNTS = (1, *MATRIX_ROWS)
"""Numbers of rows that are timed; a product of fewer rows is cut like the next of them."""

_FEWEST_PROGRAMS = 64  # half as many as a large device has multiprocessors
_MOST_PROGRAMS = 1024  # no more parts where there are so many
_PARTS = (1, 2, 4, 8)


class ProductTile(NamedTuple):
    """One way to cut a product.

    channels: outputs of a program; depth: inputs that it reads at a time; parts: that the inputs
    are cut into; warps: of a program; stages: reads that are under way at a time.
    """

    channels: int
    depth: int
    parts: int
    warps: int
    stages: int


# Weights of one turn of a loop: 8 to 16 KiB in 16 bits, so that a multiprocessor waits for 32 and
# more at a time. That is what the latency of memory asks for at four terabytes a second.
_VECTOR = [
    ProductTile(channels=4, depth=1024, parts=1, warps=4, stages=3),
    ProductTile(channels=8, depth=512, parts=1, warps=4, stages=3),
    ProductTile(channels=16, depth=256, parts=1, warps=4, stages=3),
    ProductTile(channels=8, depth=1024, parts=1, warps=8, stages=3),
]
_MATRIX = [
    ProductTile(channels=16, depth=256, parts=1, warps=4, stages=4),
    ProductTile(channels=32, depth=128, parts=1, warps=4, stages=4),
    ProductTile(channels=64, depth=128, parts=1, warps=4, stages=4),
    ProductTile(channels=128, depth=64, parts=1, warps=4, stages=4),
]


def row_count(rows: int) -> int | None:
    """The number in ROW_COUNTS that a product of so many rows is cut like; None: it has too many,
    or none."""
    return next((count for count in ROW_COUNTS if 0 < rows <= count), None)


def candidates(outputs: int, inputs: int, rows: int) -> list[ProductTile]:
    """The ways worth timing for a weight [outputs, inputs] and so many rows.

    There are more parts only where tiles of channels alone are few, and parts are no shorter than
    two turns of a program's loop.
    """
    found = []
    for tile in _VECTOR if rows == 1 else _MATRIX:
        tiles = -(-outputs // tile.channels)
        longest = inputs // (2 * tile.depth)
        numbers = [n for n in _PARTS if n == 1 or (n <= longest and n * tiles <= _MOST_PROGRAMS)]
        busy = [n for n in numbers if n * tiles >= _FEWEST_PROGRAMS] or numbers[-1:]
        found += [tile._replace(parts=n) for n in busy]
    return found
