"""Cores: those that the process may use, and what the control group pays for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from millstream.model.loading import cores


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", 64),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("9900000 100000\n", 64),
        ("", 64),
        (None, 64),
    ],
)
def test_the_fewer_of_both(
    limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "CPU_LIMIT", tmp_path / "cpu.max")
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit, encoding="ascii")
    assert cores.available_cores() == expected
