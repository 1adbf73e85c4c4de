"""How many processor cores the model's threads can use."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of CPU time per period, or "max", and the period (Linux, cgroup-v2.rst)."""


def available_cores() -> int:
    """Cores that this process may run on, or as many as its control group pays for if fewer.

    A container's limit (`docker run --cpus`, Kubernetes' `limits.cpu`) takes no cores away. Threads
    on all of them use up the time of a period at once, and all of them stop until the next.
    """
    # macOS does not tell which cores a process may use.
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else torch.get_num_threads()
    )
    return min(cores, _paid_cores() or cores)


def _paid_cores() -> int | None:
    try:
        quota, period = CPU_LIMIT.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return math.ceil(int(quota) / int(period)) if quota.isdigit() else None
