"""The size of the KV cache: what the largest step leaves of free memory."""

from __future__ import annotations

import pytest

from millstream.errors import StartupError
from millstream.model.sizing import count_blocks

GIB = 2**30


def blocks(*, wanted: int | None, step_bytes: int) -> int:
    return count_blocks(
        free_bytes=20 * GIB,
        share=0.5,
        block_bytes=GIB,
        wanted_bytes=wanted,
        step_bytes=step_bytes,
        useful_blocks=1000,
    )


def test_the_cache_leaves_room_for_the_largest_step() -> None:
    assert blocks(wanted=None, step_bytes=GIB) == 10
    assert blocks(wanted=None, step_bytes=15 * GIB) == 5
    assert blocks(wanted=15 * GIB, step_bytes=5 * GIB) == 15
    with pytest.raises(StartupError, match=r"--kv-cache-memory: .* the largest step needs"):
        blocks(wanted=15 * GIB, step_bytes=5 * GIB + 1)
    with pytest.raises(StartupError, match="no room for the KV cache"):
        blocks(wanted=None, step_bytes=20 * GIB)
