"""Do the weights fit, and how large may the KV cache be?"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import PretrainedConfig

from millstream.errors import StartupError

_CPU_SHARE = 0.5
_CUDA_SHARE = 0.85
# Float32 copies of what a token has in hidden and intermediate width, all alive at once.
_ACTIVATION_BYTES = 4 * 12
_WIDTHS = ("hidden_size", "intermediate_size")
_LOGIT_BYTES = 4 * 8  # logits, and what the sampler sorts and sums
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Free memory of the device; on CPU what the machine and this control group leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit, used = (_read_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return free
    # Files that were read, the weights among them, count as used until somebody needs the memory.
    return min(free, max(limit - used + _inactive_file_bytes(), 0))


def check_weights(size: int, *, precision: str, device: torch.device, is_quantized: bool) -> None:
    """Raises StartupError if weights of `size` bytes do not fit in free memory."""
    free = available_bytes(device)
    if size <= free:
        return
    advice = ["a smaller model"]
    if device.type == "cpu" and not is_quantized:
        advice.insert(0, "--quantize int8")
    if precision.startswith("float32"):
        advice.insert(0, "--dtype bfloat16")
    raise StartupError(
        f"the weights need {size / 2**30:,.2f} GiB in {precision}, and {free / 2**30:,.2f} GiB of "
        f"{device.type} memory are free. Choose {' or '.join(advice)}."
    )


@contextmanager
def returning_freed_memory() -> Iterator[None]:
    """Inside, the C library keeps little of what is freed; outside it does, which is faster.

    Quantising layer by layer left glibc with twice the weights' size in freed blocks.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_THRESHOLD, 2**16)
    except (OSError, AttributeError):  # another C library
        yield
        return
    try:
        yield
    finally:
        # Where glibc's own adaptation would end; once one is set, neither adapts any more.
        library.mallopt(_M_MMAP_THRESHOLD, 2**25)
        library.mallopt(_M_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch reports that on the CPU by an ordinary RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def out_of_memory(device: torch.device) -> StartupError:
    """The error for memory that ran out while the weights were loaded, in spite of the check."""
    free = available_bytes(device)
    return StartupError(
        f"{device.type} memory ran out while the weights were loaded ({free / 2**30:,.2f} GiB are "
        "free). Choose a smaller --dtype, --quantize int8 on CPU, or a smaller model."
    )


def step_bytes(
    config: PretrainedConfig, *, num_tokens: int, num_rows: int, block_bytes: int, max_blocks: int
) -> int:
    """An upper estimate of what the largest step takes beside weights and cache, in bytes.

    num_tokens: of the step; num_rows: sequences; max_blocks: blocks of the longest sequence.
    """
    # Some models give a width per layer.
    widths = [np.max(getattr(config, name, 0) or 0) for name in _WIDTHS]
    activations = num_tokens * int(sum(widths)) * _ACTIVATION_BYTES
    logits = num_rows * config.vocab_size * _LOGIT_BYTES
    # Attention gathers one layer's keys and values of a prompt's sequence at a time.
    gathered = 2 * max_blocks * block_bytes // config.num_hidden_layers
    return int(activations + logits + gathered)


def num_blocks(
    *,
    device: torch.device,
    block_bytes: int,
    wanted_bytes: int | None,
    step_bytes: int,
    useful_blocks: int,
) -> int:
    """Blocks that fit in `wanted_bytes`, or in a share of free memory; never more than useful.

    Raises StartupError when there is no room for `wanted_bytes`, or for one block, and for the
    `step_bytes` that the largest step needs.
    """
    free = available_bytes(device)
    if wanted_bytes is not None and wanted_bytes + step_bytes > free:
        raise StartupError(
            f"--kv-cache-memory: {wanted_bytes / 2**20:,.0f} MiB asked for and "
            f"{free / 2**20:,.0f} MiB are free, of which the largest step needs "
            f"{step_bytes / 2**20:,.0f} MiB; ask for less, or lower --max-batch-prefill-tokens"
        )
    share = _CPU_SHARE if device.type == "cpu" else _CUDA_SHARE
    budget = wanted_bytes
    if budget is None:
        budget = max(min(int(free * share), free - step_bytes), 0)
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


def _inactive_file_bytes() -> int:
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(values.get("inactive_file", "0"))
