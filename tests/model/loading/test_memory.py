"""Free memory: what the machine and the control group leave."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from millstream.errors import StartupError
from millstream.model.loading import memory

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 100 GiB free, and a control group without a limit yet."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    free = SimpleNamespace(available=100 * GIB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
    return tmp_path


def limit(group: Path, *, most: object, used: int, inactive_file: int = 0) -> None:
    (group / "memory.max").write_text(f"{most}\n", encoding="ascii")
    (group / "memory.current").write_text(f"{used}\n", encoding="ascii")
    text = f"anon 5\nfile 9\ninactive_file {inactive_file}\nactive_file 3\n"
    (group / "memory.stat").write_text(text, encoding="ascii")


def test_without_a_limit_the_machine_counts(group: Path) -> None:
    assert memory.available_bytes(CPU) == 100 * GIB
    limit(group, most="max", used=5 * GIB)
    assert memory.available_bytes(CPU) == 100 * GIB


def test_the_smaller_of_machine_and_group(group: Path) -> None:
    limit(group, most=8 * GIB, used=3 * GIB)
    assert memory.available_bytes(CPU) == 5 * GIB
    limit(group, most=500 * GIB, used=3 * GIB)
    assert memory.available_bytes(CPU) == 100 * GIB
    limit(group, most=2 * GIB, used=3 * GIB)
    assert memory.available_bytes(CPU) == 0


def test_files_that_were_read_are_free_memory(group: Path) -> None:
    limit(group, most=8 * GIB, used=7 * GIB, inactive_file=4 * GIB)
    assert memory.available_bytes(CPU) == 5 * GIB


def test_weights_that_fit_exactly_are_loaded(group: Path) -> None:
    limit(group, most=8 * GIB, used=3 * GIB)
    memory.check_weights(5 * GIB, precision="bfloat16", device=CPU, is_quantized=False)
    with pytest.raises(StartupError, match=r"need 5\.00 GiB in bfloat16, and 5\.00 GiB of cpu"):
        memory.check_weights(5 * GIB + 1, precision="bfloat16", device=CPU, is_quantized=False)
