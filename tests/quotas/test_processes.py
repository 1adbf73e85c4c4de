"""Several processes use one key: its limits hold over all of them, however they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from millstream.errors import RateLimited
from millstream.quotas.limits import KeyLimits
from millstream.quotas.quota import Quota
from millstream.quotas.shared_table import SharedTable
from millstream.shared_memory import SharedMemory
from tests.quotas.worker_process import (
    NUM_KEYS,
    NUM_TRIES,
    NUM_WORKERS,
    TABLE_BYTES,
    WITNESS_BYTES,
    ask,
    shared_quota,
)

ROOT = Path(__file__).parents[2]


class Server:
    """What the process that starts all others has: their memory, and a quota as worker 0 sees it.

    witness: two numbers, of answers being made now, and at most.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._memory = SharedMemory.create(TABLE_BYTES)
        self._witness = SharedMemory.create(WITNESS_BYTES)
        self.table = SharedTable(self._memory, num_workers=NUM_WORKERS)
        self.witness = self._witness.buffer.cast("q")

    def quota(self, **limits: int) -> Quota:
        return shared_quota(self.table, KeyLimits(**limits), worker=0)

    def start(self, does: str, *, worker: int, **limits: int) -> subprocess.Popen[str]:
        """A process, of tests.quotas.worker_process."""
        descriptors = [self._memory.descriptor, self._witness.descriptor]
        arguments = [does, *map(str, descriptors), str(worker), json.dumps(limits)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.quotas.worker_process", *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(stack)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def all_at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What they say when they begin at one moment."""
    assert [first_line(process) for process in processes] == ["ready"] * NUM_WORKERS
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    return [first_line(process) for process in processes]


@pytest.mark.parametrize(
    ("limits", "let_in", "most_at_once"),
    [
        ({"requests_per_minute": 1_500}, 1_500, NUM_WORKERS),
        ({"tokens_per_minute": 12_005}, 1_000, NUM_WORKERS),
        ({"max_concurrent_requests": 2}, None, 2),
        ({}, NUM_WORKERS * NUM_TRIES, NUM_WORKERS),
    ],
)
def test_no_more_is_let_in_than_the_limits_and_nothing_is_lost(
    server: Server, limits: dict[str, int], let_in: int | None, most_at_once: int
) -> None:
    quota = server.quota(**limits)
    processes = [
        server.start("ask_often", worker=worker, **limits) for worker in range(NUM_WORKERS)
    ]
    answered = sum(map(int, all_at_once(processes)))

    counts = quota.counts
    if let_in is not None:
        assert answered == let_in
    assert 0 < server.witness[1] <= most_at_once
    assert answered + sum(counts.refused.values()) == NUM_WORKERS * NUM_TRIES
    assert counts.num_open == server.witness[0] == 0
    assert (counts.num_prompt, counts.num_generated) == (7 * answered, 5 * answered)
    if quota.requests is not None:
        assert (counts.num_requests, quota.requests.remaining) == (answered, 0)
    if quota.tokens is not None:
        assert quota.tokens.remaining == 5


def test_each_key_has_one_row_whoever_takes_it(server: Server) -> None:
    processes = [server.start("take_rows", worker=worker) for worker in range(NUM_WORKERS)]
    rows, *others = map(json.loads, all_at_once(processes))
    assert others == [rows] * (NUM_WORKERS - 1)
    # The first row is that of the key whose quota each process makes when it starts.
    assert sorted(rows) == list(range(1, NUM_KEYS + 1))


def test_what_a_killed_process_held_is_given_back(server: Server) -> None:
    limits = {"max_concurrent_requests": 3, "requests_per_minute": 9, "tokens_per_minute": 100}
    quota, killed = server.quota(**limits), server.start("stay_open", worker=2, **limits)
    assert first_line(killed) == "open"
    quota.admit(1, param="n")
    killed.kill()
    killed.wait()
    with pytest.raises(RateLimited, match="3 answers at once"):
        quota.admit(1, param="n")
    server.table.clear_worker(2)
    assert quota.counts.num_open == 1
    quota.admit(2, param="n")
    assert quota.counts.num_requests == 3
    assert quota.requests is not None
    assert quota.tokens is not None
    assert (quota.requests.remaining, quota.tokens.remaining) == (6, 100 - 12)

    followed = server.start("ask_often", worker=2, **limits)
    assert followed.communicate("\n")[0].split() == ["ready", "0"], "it finds what was used"


def test_a_process_that_is_killed_while_it_changes_an_account_changes_nothing(
    server: Server,
) -> None:
    limits = {"requests_per_minute": 9}
    quota, killed = server.quota(**limits), server.start("stay_locked", worker=2, **limits)
    assert first_line(killed) == "locked"
    killed.kill()
    assert ask(quota)
    assert (quota.counts.num_requests, quota.counts.num_open) == (1, 0)
    assert quota.requests is not None
    assert quota.requests.remaining == 8


def test_wherever_a_process_is_killed_the_figures_agree(server: Server) -> None:
    """A request and its tokens are counted where they are taken."""
    limits = {"requests_per_minute": 10_000, "tokens_per_minute": 100_000}
    printed, _ = server.start("die_at_each_line", worker=1, **limits).communicate()
    lines = printed.splitlines()
    changes = list(dict.fromkeys(tuple(json.loads(line)) for line in lines))
    nothing, let_in, reserved, settled = (0, 0, 0, 0), (1, 1, 0, 0), (1, 1, 12, 0), (1, 1, 9, 2)
    assert changes == [nothing, let_in, reserved, settled]
    assert len(lines) > 100
