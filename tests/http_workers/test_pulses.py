"""HTTP workers that do not go on are found, and nobody else is taken for one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest

from millstream.http_workers.pulses import Pulses, PulseWatch, watched
from millstream.shared_memory import SharedMemory

NUM_WORKERS = 3
PATIENCE = 30.0
PIDS = {0: 1_000_000_000, 1: 1_000_000_001, 2: 1_000_000_002}

_HOLDER = """
import sys
from millstream.shared_memory import SharedMemory

with SharedMemory(int(sys.argv[1]), 16).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


class Watched:
    """A watch at a time of the test's choosing."""

    def __init__(self) -> None:
        memory = SharedMemory.create(Pulses.num_bytes(NUM_WORKERS))
        self._times = memory.buffer.cast("d")
        self.shared = SharedMemory.create(16)
        self.pids = dict(PIDS)
        self.watch = PulseWatch(Pulses(memory), PATIENCE, lambda: self.pids, [self.shared])
        self.now = time.monotonic()

    def go_on(self, seconds: float, *, silent: Collection[int] = ()) -> dict[int, int]:
        """Lets time pass, in which all but those say that they go on. What is found at its end."""
        end = self.now + seconds
        while True:
            self.now = min(self.now + 1.0, end)
            self.beat(silent=silent)
            if (found := self.watch.find(self.now)) or self.now == end:
                return found

    def beat(self, *, silent: Collection[int] = ()) -> None:
        """All but those say that they go on."""
        for worker in self.pids.keys() - set(silent):
            self._times[worker] = self.now

    def end(self, worker: int) -> None:
        """A worker has ended, and its successor starts."""
        self.watch.pulses.clear(worker)


@pytest.fixture
def observed() -> Watched:
    return Watched()


@contextmanager
def locked_by_another(shared: SharedMemory) -> Iterator[int]:
    """The lock is held by a process; its number."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(shared.descriptor)],
        pass_fds=[shared.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield process.pid
        process.stdin.close()


def test_who_goes_on_is_left_alone(observed: Watched) -> None:
    assert observed.go_on(10 * PATIENCE) == {}


def test_a_worker_that_does_not_go_on_is_found_and_no_other(observed: Watched) -> None:
    assert observed.go_on(2) == {}
    assert observed.go_on(PATIENCE - 1, silent={1}) == {}
    assert observed.go_on(3, silent={1}) == {1: PIDS[1]}


def test_a_worker_that_is_stopped_for_a_while_goes_on(observed: Watched) -> None:
    assert observed.go_on(2) == {}
    assert observed.go_on(PATIENCE - 1, silent={1}) == {}
    assert observed.go_on(PATIENCE * 2) == {}


def test_nobody_waits_for_a_worker_that_starts(observed: Watched) -> None:
    assert observed.go_on(PATIENCE * 3, silent={0, 1, 2}) == {}
    assert observed.go_on(2) == {}
    observed.end(1)
    assert observed.go_on(PATIENCE * 3, silent={1}) == {}


def test_a_worker_is_not_found_again_while_it_ends(observed: Watched) -> None:
    observed.go_on(2)
    assert observed.go_on(PATIENCE + 2, silent={1}) == {1: PIDS[1]}
    assert observed.go_on(PATIENCE - 1, silent={1}) == {}


def test_a_server_that_was_paused_goes_on(observed: Watched) -> None:
    observed.go_on(2)
    observed.now += 1_000_000
    assert observed.watch.find(observed.now) == {}
    assert observed.go_on(PATIENCE - 2, silent={0, 1, 2}) == {}
    assert observed.go_on(PATIENCE * 2) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who has a lock")
def test_of_those_that_wait_for_a_lock_only_its_holder_is_found(observed: Watched) -> None:
    observed.go_on(2)
    with locked_by_another(observed.shared) as holder:
        observed.pids[2] = holder
        assert observed.go_on(PATIENCE + 2, silent={0, 1, 2}) == {2: holder}
        observed.end(2)
        # The others have had no time yet to say anything.
        assert observed.go_on(PATIENCE - 1, silent={0, 1, 2}) == {}
    assert observed.go_on(PATIENCE * 2) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who has a lock")
def test_whoever_has_the_lock_is_told() -> None:
    shared = SharedMemory.create(16)
    assert shared.lock_holder() is None
    with locked_by_another(shared) as holder:
        assert shared.lock_holder() == holder != os.getpid()
    with shared.locked():
        assert shared.lock_holder() is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who has a lock")
def test_who_waits_for_a_lock_of_one_that_is_stopped_goes_on(observed: Watched) -> None:
    with locked_by_another(observed.shared) as holder:
        os.kill(holder, signal.SIGSTOP)
        observed.pids = {1: holder, 2: os.getpid()}
        observed.beat()
        observed.watch.patience = 3.0
        # Neither says anything from now on; this thread waits for the lock.
        with watched(observed.watch), observed.shared.locked():
            pass


async def test_a_worker_says_that_it_goes_on_until_it_ends() -> None:
    pulses = Pulses(SharedMemory.create(Pulses.num_bytes(NUM_WORKERS)))
    beating = asyncio.create_task(pulses.keep_beating(1))
    await asyncio.sleep(0)
    assert pulses.last(1) > 0.0
    assert pulses.last(0) == pulses.last(2) == 0.0
    beating.cancel()
    await asyncio.wait([beating])
    assert pulses.last(1) == 0.0
