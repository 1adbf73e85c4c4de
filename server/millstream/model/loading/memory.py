"""How much memory is free, and whether the weights of a model fit in it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from millstream.errors import StartupError

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
