"""Products for processors without AVX-512, compiled and run on one that may have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from millstream.model.cpu.kernels.compilation import (
    FLAGS,
    BuildError,
    find_compiler,
    processor,
    run_compiler,
)
from tests.model.cpu.kernels.narrow_check import SOURCE


def test_products_are_right_by_avx2(tmp_path: Path) -> None:
    """In a process of its own: functions of both libraries have the same names."""
    if not {"avx2", "fma"} <= set(processor().split()):
        pytest.skip("this processor has no AVX2")
    try:
        compiler = find_compiler()
    except BuildError:
        pytest.skip("this machine has no compiler")
    source, library = tmp_path / "narrow.cpp", tmp_path / "narrow.so"
    source.write_text(SOURCE)
    run_compiler(compiler, source, library, ["-O1", "-march=x86-64-v3", *FLAGS])
    command = [sys.executable, "-m", "tests.model.cpu.kernels.narrow_check", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == "equal", done.stderr
