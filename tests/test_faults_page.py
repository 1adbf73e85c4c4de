"""docs/faults.md names tests; they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_fault_has_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "fault |" not in line]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", row.split("|")[3])
        assert named, row
        for file, name in named:
            source = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"
