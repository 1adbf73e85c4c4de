"""A server whose log goes to a program that has ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .harness import RunningServer


def test_nobody_reads_the_log_any_more(tmp_path: Path, endless_model: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    server = RunningServer(flags, pipe, is_warm=True)
    try:
        before = server.answer("Hello")
        os.close(reader)
        assert server.answer("Hello") == before
        assert server.chat("Hello", nonsense=1).status_code == 400
        server.wait_idle()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    finally:
        server.kill()
