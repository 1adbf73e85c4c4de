"""A server whose log goes to a program that has ended, or stands still."""

from __future__ import annotations

import fcntl
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


def test_the_reader_of_the_log_stands_still(tmp_path: Path, endless_model: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    capacity = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    server = RunningServer(flags, pipe, is_warm=True)
    try:
        for _ in range(capacity // 64):  # a line of the log has more letters
            assert server.chat("Hello", nonsense=1).status_code == 400
        assert server.answer("Hello")
        server.wait_idle()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert capacity - len(os.read(reader, 2 * capacity)) < 512, "there was room for a line"
    finally:
        server.kill()
        os.close(reader)
