"""docs/operations.md says what the command exits with, and why."""

from __future__ import annotations

import re
from pathlib import Path

from millstream.errors import EngineLost, StartupError

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
# Which of them come when is tested where it happens: tests/test_cli.py, tests/e2e/test_health.py
# and tests/e2e/test_shutdown.py.
STATUSES = {0, StartupError.exit_status, 2, EngineLost.exit_status, 130}


def test_every_status_is_told() -> None:
    table = PAGE.split("<!-- exit: ")[1].split("<!-- end of exit -->")[0]
    assert [int(status) for status in re.findall(r"^\| (\d+) \|", table, re.M)] == sorted(STATUSES)
