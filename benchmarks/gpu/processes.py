"""Parts of the checks in processes of their own, so that one that dies takes no other with it.

After an access to memory that is not there, a CUDA device answers nothing to its process any more;
a kernel that never ends is waited for, until its process is ended.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.report import Report

_STOP_SECONDS = 15.0


def run_apart(
    report: Report, part: str, command: Sequence[str], file: Path, *, seconds: float
) -> None:
    """Runs a command that saves its lines to `file` one by one, and takes them over.

    One that dies, or is ended after so many seconds, costs a line; those it had saved are kept.
    """
    how = ""
    # What it leaves of its temporary files goes with the folder of `file`.
    own = {**os.environ, "TMPDIR": str(file.parent)}
    with subprocess.Popen(command, env=own) as process:
        try:
            status = process.wait(seconds)
            if status not in (0, 1):  # 1: one of its lines is a failed check
                how = f"status {status}"
        except subprocess.TimeoutExpired:
            how = f"still ran after {seconds:.0f} s"
        finally:
            _end(process)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rows, how = [], how or "nothing was saved"
    report.take_over(rows)
    if how:
        report.add(f"{part}, its process", "died", how, status="FAILED")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first, so that it ends the processes that it has begun."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
