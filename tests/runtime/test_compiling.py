"""Requests that wait for their grammars while others run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from millstream.core.request import Request
from millstream.core.status import Statistics
from millstream.runtime.compiling_channel import CompilingChannel, CompilingThread
from millstream.runtime.engine_history import EngineHistory
from millstream.runtime.messages import (
    Add,
    Cancel,
    FromEngine,
    Step,
    Stop,
    ToEngine,
    decode_from_engine,
    encode,
)
from tests.fakes import FakeRunner, Panic, alone, fake_info, make_request
from tests.runtime.conftest import EngineFactory, begin, collect, request_for


class CompilingRunner(FakeRunner):
    """A prompt that begins with 7 needs compiling. gate: compiling waits for it."""

    def __init__(self) -> None:
        super().__init__(fake_info(num_blocks=64))
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.compiled: list[int] = []
        self.error: BaseException | None = None

    def is_compiled(self, request: Request) -> bool:
        return request.prompt[0] != 7 or request.id in self.compiled

    def compile(self, request: Request) -> None:
        self.begun.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.compiled.append(request.id)


class Inbox:
    """A channel whose messages are there from the start. None: somebody woke the reader."""

    def __init__(self, *messages: ToEngine | None) -> None:
        self.messages = list(messages)
        self.sent: list[FromEngine] = []
        self.num_wakes = 0

    def receive(self) -> ToEngine | None:
        return self.messages.pop(0)

    def receive_nowait(self) -> ToEngine | None:
        return self.messages.pop(0) if self.messages and self.messages[0] else None

    def send(self, message: FromEngine) -> None:
        self.sent.append(message)

    def wake(self) -> None:
        self.num_wakes += 1


def channel(inbox: Inbox) -> tuple[CompilingChannel, CompilingRunner, list[Callable[[], None]]]:
    """The channel, with the jobs that a test runs itself."""
    runner, jobs = CompilingRunner(), list[Callable[[], None]]()
    runner.gate.set()
    return CompilingChannel(inbox, runner, submit=jobs.append), runner, jobs


def add(request_id: int, *, slow: bool) -> Add:
    return Add(make_request(request_id, (7 if slow else 1, 2)))


def test_what_is_compiled_overtakes_what_is_not() -> None:
    inbox = Inbox(add(1, slow=True), add(2, slow=False), Cancel(9), add(3, slow=True))
    compiling, runner, jobs = channel(inbox)
    assert compiling.receive_nowait() == add(2, slow=False)
    assert compiling.receive_nowait() == Cancel(9)
    assert compiling.receive_nowait() is None
    jobs[0]()
    assert compiling.receive_nowait() == add(1, slow=True)
    assert compiling.receive_nowait() is None
    jobs[1]()
    inbox.messages.append(Stop())
    assert [compiling.receive(), compiling.receive()] == [add(3, slow=True), Stop()]
    assert (runner.compiled, inbox.num_wakes) == ([1, 3], 2)


def test_who_is_cancelled_meanwhile_is_never_delivered() -> None:
    inbox = Inbox(add(1, slow=True), add(2, slow=True), Cancel(1), add(3, slow=False))
    compiling, runner, jobs = channel(inbox)
    assert compiling.receive_nowait() == add(3, slow=False)
    for job in jobs:
        job()
    assert compiling.receive_nowait() == add(2, slow=True)
    assert compiling.receive_nowait() is None
    assert runner.compiled == [2], "nobody waits for the other one"


@pytest.mark.parametrize("error", [RuntimeError("planted failure"), Panic("planted panic")])
def test_what_cannot_be_compiled_is_delivered(error: BaseException) -> None:
    compiling, runner, jobs = channel(Inbox(add(1, slow=True)))
    runner.error = error
    assert compiling.receive_nowait() is None
    jobs[0]()
    assert compiling.receive_nowait() == add(1, slow=True)


def test_kernels_that_a_device_compiled_are_told_with_each_step() -> None:
    inbox = Inbox()
    compiling, runner, _ = channel(inbox)
    for count in (None, 0, 2):
        runner.num_late_kernels = count
        compiling.send(Step([], [], Statistics(num_running=3)))
        expected = Statistics(num_running=3, num_late_kernels=count)
        assert inbox.sent[-1] == Step([], [], expected)
        assert decode_from_engine(encode(inbox.sent[-1])) == inbox.sent[-1]


def test_kernels_of_engines_that_follow_one_another_are_summed() -> None:
    history = EngineHistory()
    history.on_end(Statistics(num_late_kernels=2), is_replaced=True)
    history.on_end(Statistics(), is_replaced=True)
    assert history.counters(Statistics(num_late_kernels=1))["num_late_kernels"] == 3


async def test_others_stream_while_one_compiles(run_engine_client: EngineFactory) -> None:
    runner = CompilingRunner()
    async with run_engine_client(lambda: runner) as client:
        waiting = begin(client, (7, 3), max_tokens=5)
        await asyncio.to_thread(runner.begun.wait)
        for number in range(3):
            other = begin(client, (1, number), max_tokens=20)
            assert await collect(other) == alone(request_for(other, (1, number), 20))
        runner.gate.set()  # the engine is idle by now, and wakes by itself
        assert await collect(waiting) == alone(request_for(waiting, (7, 3), 5))


async def test_a_stop_does_not_wait_for_it(run_engine_client: EngineFactory) -> None:
    runner = CompilingRunner()
    async with asyncio.timeout(20), run_engine_client(lambda: runner) as client:
        begin(client, (7, 3), max_tokens=5)
        await asyncio.to_thread(runner.begun.wait)
    runner.gate.set()


def test_the_thread_has_a_larger_stack_than_the_check() -> None:
    """A grammar that passed in a stack of 2 MiB must not exhaust this one."""
    before, done = threading.stack_size(), threading.Event()
    sizes: list[int] = []

    def job() -> None:
        with open("/proc/thread-self/maps") as maps:
            for line in maps:
                first, last = (int(end, 16) for end in line.split()[0].split("-"))
                sizes.append(last - first)
        done.set()

    thread = CompilingThread()
    thread.submit(job)
    assert done.wait(30)
    assert 16 * 2**20 in sizes
    assert threading.stack_size() == before
