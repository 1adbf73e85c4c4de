"""The server on which other people's clients are tried, which `make test` does not try."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .harness import RunningServer

_PROGRAM = Path(__file__).parents[1] / "compat" / "scripted_server.py"


def test_it_says_its_lines(tmp_path: Path) -> None:
    flags = ["--max-concurrent-requests", "2", "--kv-cache-memory", "64MiB"]
    line = {"name": "Bob", "age": 4}  # of tests/compat/script.py
    server = RunningServer(flags, tmp_path / "server.log", command=[sys.executable, str(_PROGRAM)])
    try:
        for before in ("", f"{json.dumps(line)} is to be quoted. " * 3):
            answer = server.answer(f"{before}Who is Bob? JSON", max_tokens=32)
            assert answer == json.dumps(line)
    finally:
        server.stop()
