"""The GPU checks as a dry run on the CPU, also where packages they can do without are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.gpu.report import Report

_ROOT = Path(__file__).parent.parent.parent

_WITHOUT = """
import importlib.abc, runpy, sys

class Hidden(importlib.abc.MetaPathFinder):
    names = "pydantic pydantic_settings llguidance msgspec zmq starlette uvicorn torchao triton"

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names.split():
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in Hidden.names.split() else find_spec(name, package)
)
sys.meta_path.insert(0, Hidden())
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def test_dry_run_without_optional_packages(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, "--dry-run", "--json", str(file)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": "server", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert {row["status"] for row in rows} == {"ok", "SKIPPED"}
    by_name = {row["name"]: row for row in rows}
    assert "llguidance, pydantic-settings" in by_name["stand-ins"]["note"]
    names = " ".join(by_name)
    for part in (
        "gemma2 bfloat16 few blocks",
        "decode, 4 seq",
        "products, 16 rows",
        "prefill",
        "generate_batch",
        "copy",
    ):
        assert part in names


def test_one_failing_check_hides_no_other() -> None:
    report = Report(seconds=60)

    def fails() -> None:
        raise RuntimeError("no kernel image is available")

    report.run("first", fails)
    report.run("second", lambda: report.add("second", "7"))
    report.expect("third", False, "other tokens")
    late = Report(seconds=0)
    late.run("late", fails)
    assert [row["status"] for row in report.rows] == ["FAILED", "ok", "FAILED"]
    assert report.num_failed == 2
    assert "no kernel image is available (test_bench_gpu.py:" in report.table()
    assert late.rows[0]["status"] == "SKIPPED"


def test_no_device_is_said(capsys: object) -> None:
    if torch.cuda.is_available():
        return
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": "server"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
