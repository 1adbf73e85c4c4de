"""Work in threads: what it returns, and that it ends when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from millstream.workers.threads import Interrupted, WorkerThreads


@pytest.fixture
async def threads() -> AsyncIterator[WorkerThreads]:
    threads = WorkerThreads(max_threads=1)
    yield threads
    threads.stop()


class Loop:
    """Work that never ends by itself."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.ended: list[BaseException] = []

    def __call__(self) -> None:
        try:
            self.has_begun.set()
            while True:
                pass
        except BaseException as error:
            self.ended.append(error)
            raise


async def begun(threads: WorkerThreads, work: Loop) -> asyncio.Task[None]:
    running = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(work.has_begun.wait)
    return running


async def test_results_and_failures_arrive(threads: WorkerThreads) -> None:
    assert await threads.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_cancelled_work_ends_and_its_thread_is_free(threads: WorkerThreads) -> None:
    for _ in range(20):
        work = Loop()
        running = await begun(threads, work)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await threads.run(lambda: 3) == 3  # the only thread
        assert [type(error) for error in work.ended] == [Interrupted]


async def test_work_that_waits_for_a_thread_never_begins(threads: WorkerThreads) -> None:
    first, calls = Loop(), list[int]()
    running = await begun(threads, first)
    waiting = asyncio.create_task(threads.run(lambda: calls.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    running.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert await threads.run(lambda: 3) == 3
    assert calls == []


async def test_an_interruption_that_comes_too_late_hits_nobody_else() -> None:
    """Interrupts at every moment around the end of work that is already over."""
    threads = WorkerThreads(max_threads=1)
    for _ in range(300):
        is_over = threading.Event()
        running = asyncio.create_task(threads.run(is_over.set))
        await asyncio.to_thread(is_over.wait)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await threads.run(lambda: 3) == 3
    threads.stop()


@pytest.mark.parametrize("end", [WorkerThreads.stop])
async def test_stopping_ends_everything(end: Callable[[WorkerThreads], None]) -> None:
    threads, work = WorkerThreads(max_threads=1), Loop()
    running = await begun(threads, work)
    waiting = asyncio.create_task(threads.run(lambda: 3))
    await asyncio.sleep(0)
    end(threads)
    outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(one) for one in outcomes] == [Interrupted, asyncio.CancelledError]
