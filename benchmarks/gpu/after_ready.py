"""What must not change once an engine is ready: kernels that are compiled, memory that is free."""

from __future__ import annotations

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import Size
from millstream.model.runner import ModelRunner


def report_late_kernels(report: Report, shape: str, runner: ModelRunner) -> None:
    """Kernels compiled since the runner was made, by all that was measured with it."""
    name, count = f"{shape} kernels compiled after ready", runner.num_late_kernels
    if count is None:
        report.add(name, "unknown", "there is no Triton here that tells", status="SKIPPED")
    else:
        report.add(name, str(count), status="FAILED" if count else "ok")


def report_memory(report: Report, size: Size, shape: str, runner: ModelRunner, when: str) -> None:
    """What is free of the device; fails if memory has run out since the process began."""
    name = f"{shape} memory free {when}"
    if size.device.type != "cuda":
        report.add(name, "-", "needs a CUDA device", status="SKIPPED")
        return
    free, total = torch.cuda.mem_get_info(size.device)
    statistics = torch.cuda.memory_stats(size.device)
    retries, failures = statistics["num_alloc_retries"], statistics["num_ooms"]
    note = (
        f"of {total / 2**30:.2f}, KV cache {runner.info.kv_cache_bytes / 2**30:.2f}; memory was "
        f"given back to get more {retries} times, and has run out {failures} times"
    )
    status = "FAILED" if failures else "ok"
    report.add(name, f"{free / 2**30:.2f} GiB", note, status=status)
