"""The GPU checks as a dry run on the CPU, also where packages they can do without are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu.__main__ import command_of, share
from benchmarks.gpu.after_ready import report_memory
from benchmarks.gpu.processes import run_apart
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
    over_http = by_name["tiny server over HTTP"]
    assert over_http["status"] == "SKIPPED"
    assert over_http["note"] == (
        "needs llguidance, msgspec, pydantic, pydantic-settings, pyzmq, starlette, uvicorn"
    )
    names = " ".join(by_name)
    for part in (
        "gemma2 bfloat16 few blocks",
        "decode, 4 seq",
        "products, 16 rows",
        "prefill",
        "generate_batch",
        "copy",
        "memory free when ready",
        "nothing fused",
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


_ROW = {"name": "before", "value": "7", "note": "", "status": "ok"}
_DYING = """
import os, signal, sys
from pathlib import Path

Path(sys.argv[1]).write_text(sys.argv[2])
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("os.abort()", "status -6"),
        ("signal.pause()", "still ran after"),
        ("sys.exit(1)", None),
    ],
)
def test_a_part_that_dies_costs_a_line(tmp_path: Path, ending: str, how: str | None) -> None:
    report, file = Report(60, file=tmp_path / "all.json"), tmp_path / "part.json"
    script = _DYING.format(ending=ending)
    command = [sys.executable, "-c", script, str(file), json.dumps([_ROW])]
    run_apart(report, "speed", command, file, seconds=5 if "pause" in ending else 60)
    report.add("after", "8")
    died = [row for row in report.rows if row["name"] == "speed, its process"]
    assert [row["name"] for row in report.rows if row not in died] == ["before", "after"]
    assert [how is not None and how in row["note"] for row in died] == [True] * (how is not None)
    assert json.loads((tmp_path / "all.json").read_text(encoding="utf-8")) == report.rows


def test_a_part_that_saves_nothing_is_told(tmp_path: Path) -> None:
    report = Report(60)
    run_apart(report, "speed", [sys.executable, "-c", ""], tmp_path / "no.json", seconds=60)
    assert [row["note"] for row in report.rows] == ["nothing was saved"]


def test_a_part_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    report, file = Report(60), tmp_path / "part.json"
    command = command_of("ablation tiny", file, seconds=0, is_dry=True)
    run_apart(report, "ablation", command, file, seconds=60)
    assert [(row["status"], row["note"]) for row in report.rows] == [
        ("SKIPPED", "no time was left")
    ]


def test_a_part_may_end_what_it_has_begun(tmp_path: Path) -> None:
    report, file = Report(60), tmp_path / "part.json"
    script = """
import signal, sys, tempfile
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
file = Path(sys.argv[1])
try:
    file.write_text("[]")
    signal.pause()
finally:
    file.with_name("ended").write_text(tempfile.gettempdir())
"""
    run_apart(report, "server", [sys.executable, "-c", script, str(file)], file, seconds=5)
    assert (tmp_path / "ended").read_text() == str(tmp_path), "its temporary files stay"
    assert ["still ran after" in row["note"] for row in report.rows] == [True]


def test_parts_share_the_time() -> None:
    assert share("server 1B", 420, num_parts=8) == 120
    assert share("server 1B", 420, num_parts=2) == 210
    assert share("ablation 8B", 30, num_parts=2) == 30


@pytest.mark.parametrize(("failures", "status"), [(0, "ok"), (1, "FAILED")])
def test_memory_that_ran_out_fails(
    failures: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = {"num_alloc_retries": 2, "num_ooms": failures}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 140 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: statistics)
    report, size = Report(60), SimpleNamespace(device=torch.device("cuda"))
    runner = SimpleNamespace(info=SimpleNamespace(kv_cache_bytes=100 * 2**30))
    stand_ins: Any = size, "8B", runner
    report_memory(report, *stand_ins, "when ready")
    note = (
        "of 140.00, KV cache 100.00; memory was given back to get more 2 times, and has run out "
        f"{failures} times"
    )
    expected = {"name": "8B memory free when ready", "value": "3.00 GiB", "status": status}
    assert report.rows == [{**expected, "note": note}]


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
