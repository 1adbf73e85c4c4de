"""The kernels' threads: nobody waits for one that does not run, and they sleep without work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels
from tests.model.native_cases import make_case


@pytest.fixture(autouse=True)
def many_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def product(kernels: Kernels, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(700, 300, generator=generator).bfloat16()
    x = torch.randn(rows, 300, generator=generator).bfloat16()
    return kernels.packed_linear(x, kernels.pack_weight(weight), 700)


def test_several_callers_at_once(kernels: Kernels) -> None:
    expected = [product(kernels, rows) for rows in range(1, 9)]
    start = threading.Barrier(4)

    def call(_: int) -> bool:
        start.wait(timeout=30)
        return all(
            torch.equal(product(kernels, rows), truth)
            for _ in range(20)
            for rows, truth in enumerate(expected, 1)
        )

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(call, range(4)))


def test_a_failing_unit_ends_its_loop_only(kernels: Kernels) -> None:
    case = make_case([1000] * 20)
    expected = case.attend(kernels)
    case.tables[7, 3] = 10_000
    for _ in range(50):
        with pytest.raises(RuntimeError, match="does not exist"):
            case.attend(kernels)
    case.tables[7, 3] = case.tables[7, 2]
    others = [row for row in range(20) if row != 7]
    assert torch.equal(case.attend(kernels)[others], expected[others])


def test_more_and_fewer_threads_from_call_to_call(kernels: Kernels) -> None:
    """Those who are not wanted have no place to work in."""
    case = make_case([1000] * 20)
    expected, attended = product(kernels, 40), case.attend(kernels)
    for _ in range(30):
        for count in (1, 4, 2, 6, 3):
            torch.set_num_threads(count)
            assert torch.equal(product(kernels, 40), expected)
            assert torch.equal(case.attend(kernels), attended)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_helpers_without_work_sleep(kernels: Kernels) -> None:
    """An idle engine uses no processor time: their clocks stand still."""
    before = set(os.listdir("/proc/self/task"))
    product(kernels, 40)
    torch.set_num_threads(12)
    product(kernels, 40)
    helpers = set(os.listdir("/proc/self/task")) - before
    assert helpers, "nobody helps"
    deadline = time.monotonic() + 30
    while any(state(helper) != "S" for helper in helpers):
        assert time.monotonic() < deadline, "helpers go on looking for work"
    spent = [ticks(helper) for helper in helpers]
    total = sum(range(10_000_000))  # a moment that is not slept
    assert total
    assert [ticks(helper) for helper in helpers] == spent


def state(thread: str) -> str:
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]


def ticks(thread: str) -> int:
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_forked_child_has_threads_of_its_own(kernels: Kernels) -> None:
    """Threads do not survive fork(): a child that waited for them would wait for ever."""
    code = (
        "import os, torch\n"
        "from millstream.model.cpu.kernels import load\n"
        "torch.set_num_threads(4)\n"
        "kernels = load()\n"
        "weight = kernels.pack_weight(torch.ones(700, 300).bfloat16())\n"
        "call = lambda: kernels.packed_linear(torch.ones(2, 300).bfloat16(), weight, 700)\n"
        "expected = call()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if torch.equal(call(), expected) else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
