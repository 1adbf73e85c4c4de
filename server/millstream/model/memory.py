"""How large the KV cache may be."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from millstream.errors import StartupError

_CPU_SHARE = 0.5
_CUDA_SHARE = 0.85
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Free memory of the device; on CPU what the machine and this control group leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit, used = (_read_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(limit - used, 0))


def num_blocks(
    *,
    device: torch.device,
    block_bytes: int,
    wanted_bytes: int | None,
    useful_blocks: int,
) -> int:
    """Blocks that fit in `wanted_bytes`, or in a share of free memory; never more than useful.

    Raises StartupError when `wanted_bytes` is more than there is, or not one block fits.
    """
    free = available_bytes(device)
    if wanted_bytes is not None and wanted_bytes > free:
        raise StartupError(
            f"--kv-cache-memory: {wanted_bytes / 2**20:,.0f} MiB asked for, "
            f"{free / 2**20:,.0f} MiB are free"
        )
    share = _CPU_SHARE if device.type == "cpu" else _CUDA_SHARE
    budget = wanted_bytes if wanted_bytes is not None else int(free * share)
    count = min(budget // block_bytes, useful_blocks)
    if count < 1:
        raise StartupError(
            f"no room for the KV cache: one block takes {block_bytes / 2**20:,.1f} MiB and "
            f"{budget / 2**20:,.1f} MiB are left. Choose a smaller model or dtype."
        )
    return count


def _read_number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
