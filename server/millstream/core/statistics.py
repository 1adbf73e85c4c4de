"""How the scheduler stands, as one frozen object; whoever shows it only formats it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot; counts are of now, `num_preemptions` is since start."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_blocks_used: int = 0
    num_blocks_cached: int = 0
    num_preemptions: int = 0
