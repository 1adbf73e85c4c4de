"""Memory of several processes: all see what one has written, and nobody is locked out for good."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from millstream.shared_memory import SharedMemory

_CHILD = """
import sys
from millstream.shared_memory import SharedMemory

shared = SharedMemory(int(sys.argv[1]), 16)
numbers = shared.buffer.cast("q")
"""


def child(shared: SharedMemory, code: str) -> subprocess.Popen[bytes]:
    """A process that has the same memory as `shared`, its numbers in `numbers`."""
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD + code, str(shared.descriptor)],
        pass_fds=[shared.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def shared() -> SharedMemory:
    return SharedMemory.create(16)


def test_it_is_zero_at_first_and_of_its_size(shared: SharedMemory) -> None:
    assert bytes(shared.buffer) == bytes(16)


def test_processes_that_count_together_lose_nothing(shared: SharedMemory) -> None:
    code = """
sys.stdin.read()
for _ in range(20_000):
    with shared.locked():
        numbers[0] += 1
"""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child(shared, code)) for _ in range(3)]
        for process in children:
            assert process.stdin is not None
            process.stdin.close()
        assert [process.wait() for process in children] == [0, 0, 0]
    assert shared.buffer.cast("q")[0] == 60_000


def test_a_process_that_is_killed_gives_the_lock_back(shared: SharedMemory) -> None:
    code = """
with shared.locked():
    numbers[1] = 7
    print("locked", flush=True)
    sys.stdin.read()
"""
    with child(shared, code) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        holder.kill()
        with shared.locked() as buffer:
            assert buffer.cast("q")[1] == 7


def test_whoever_fails_while_it_is_locked_gives_it_back(shared: SharedMemory) -> None:
    with pytest.raises(ValueError, match="told"), shared.locked():
        raise ValueError("told")
    with child(shared, "with shared.locked(): pass") as other:
        assert other.wait() == 0


def test_it_is_closed(shared: SharedMemory) -> None:
    shared.close()
    with pytest.raises(ValueError, match="released"):
        shared.buffer[0]
