"""Lines for a reader that may be slow, stand still or be gone."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator

import pytest

from millstream.log_writer import LineWriter

LINE = "x" * 999 + "\n"


class Pipe:
    """A writer to a pipe that takes one page, of a log that may hold ten lines."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.capacity = fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, 4096)
        self.writer = LineWriter(
            self.write_end, told_lost=lambda count: f"lost {count}\n", max_waiting=10_000
        )

    def fill(self) -> None:
        """From now on the thread of the writer waits, and so do two lines."""
        os.write(self.write_end, b"." * self.capacity)
        for _ in range(2):
            self.writer.put(LINE)

    def read(self, until: str) -> str:
        text = ""
        while until not in text:
            text += os.read(self.read_end, 4096).decode()
        return text.lstrip(".")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.read_end)
    pipe.writer.close()  # nothing waits any more, as nobody reads
    os.close(pipe.write_end)


def test_lines_come_in_order(pipe: Pipe) -> None:
    for number in range(5):
        pipe.writer.put(f"{number}\n")
    pipe.writer.flush()
    assert pipe.read("4") == "0\n1\n2\n3\n4\n"


def test_what_is_lost_is_counted_in_its_place(pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(8 + 7):
        pipe.writer.put(LINE)  # eight fit
    read = pipe.read(LINE * 10)
    pipe.writer.flush()
    pipe.writer.put("later\n")
    read += pipe.read("later\n")
    assert read == LINE * 10 + "lost 7\nlater\n"


def test_it_is_not_counted_line_by_line(pipe: Pipe) -> None:
    """Who has lost some waits until there is room for many."""
    pipe.fill()
    for _ in range(8 + 1):
        pipe.writer.put(LINE)
    os.read(pipe.read_end, pipe.capacity)
    while pipe.writer.num_waiting > 6 * len(LINE):  # four have room in a page
        pass
    pipe.writer.put(LINE)
    assert pipe.writer.num_lost == 2


def test_who_ends_does_not_wait_for_ever(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream.log_writer._PATIENCE", 0.05)
    pipe.fill()
    pipe.writer.close()
    assert pipe.writer.num_waiting == 2 * len(LINE)
    assert pipe.read(LINE * 2) == LINE * 2


def test_who_ends_says_what_is_lost(pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(8 + 1):
        pipe.writer.put(LINE)
    reader = threading.Thread(target=lambda: read.append(pipe.read("lost 1\n")))
    read: list[str] = []
    reader.start()
    pipe.writer.close()
    reader.join()
    assert read == [LINE * 10 + "lost 1\n"]


def test_a_pipe_that_somebody_has_made_unblocking(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    pipe.writer.put(LINE * 100)
    assert pipe.read(LINE * 100) == LINE * 100


def test_a_reader_that_is_gone() -> None:
    pipe = Pipe()
    os.close(pipe.read_end)
    pipe.writer.put(LINE)
    pipe.writer.close()
    assert pipe.writer.num_waiting == 0
    os.close(pipe.write_end)
