"""HTTP workers and their hub in one process, with messages that arrive when the test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from millstream.http_workers.count_messages import AllCounts, AskCounts, GatherCounts, TellCounts
from millstream.http_workers.counting import CountKeeper, WorkerCounts
from millstream.metrics.counts import Counts
from millstream.metrics.process_figures import ProcessFigures

NUM_TASKS = 7


async def settle() -> None:
    """Lets tasks do what they can without a message."""
    for _ in range(5):
        await asyncio.sleep(0)


class Timers:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.waiting: list[_Timer] = []

    @property
    def seconds(self) -> list[float]:
        return [timer.seconds for timer in self.waiting]

    def call_later(self, seconds: float, call: Callable[[], None]) -> _Timer:
        timer = _Timer(self, seconds, call)
        self.waiting.append(timer)
        return timer

    def fire(self) -> None:
        """The time of the timer that was set first is over."""
        self.waiting.pop(0).call()


@dataclass(eq=False)
class _Timer:
    timers: Timers
    seconds: float
    call: Callable[[], None]

    def cancel(self) -> None:
        if self in self.timers.waiting:
            self.timers.waiting.remove(self)


@dataclass
class _Worker:
    """One process, and the messages that are on their way. num_delivered: those from the hub."""

    counts: Counts
    side: WorkerCounts
    to_hub: deque[AskCounts | TellCounts] = field(default_factory=deque)
    from_hub: deque[GatherCounts | AllCounts] = field(default_factory=deque)
    num_delivered: int = 0


class Simulation:
    """Workers with the numbers from 0 on; none of their first reports has been delivered."""

    def __init__(self, *, num_workers: int) -> None:
        self.timers = Timers()
        self._hub = CountKeeper(self._send_to_worker, call_later=self.timers.call_later)
        self._workers: dict[int, _Worker] = {}
        for number in range(num_workers):
            self.start(number)

    @property
    def living(self) -> list[int]:
        """The numbers of workers that have not been killed."""
        return sorted(self._workers)

    def counts(self, number: int) -> Counts:
        """What a worker has counted."""
        return self._workers[number].counts

    def start(self, number: int) -> None:
        """Starts a worker, which reports."""
        counts = Counts(num_tasks=NUM_TASKS, num_processes=1)
        counts.process = ProcessFigures(cpu_nanoseconds=0, start_time=1e9)
        side = WorkerCounts(lambda: counts, lambda message: worker.to_hub.append(message))
        worker = self._workers[number] = _Worker(counts, side)
        side.report()

    def count(self, number: int, num_started: int) -> None:
        self.counts(number).requests.num_started += num_started

    def finish(self, number: int, num_finished: int) -> None:
        self.counts(number).requests.finished["stop"] += num_finished

    def report(self, number: int) -> None:
        self._workers[number].side.report()

    async def keep_reporting(self, number: int) -> None:
        await self._workers[number].side.keep_reporting()

    def ask(self, number: int) -> asyncio.Task[Counts]:
        """A worker is asked for metrics."""
        return asyncio.create_task(self._workers[number].side.all())

    async def scrape(self, number: int) -> Counts:
        """The answer of a worker, if all messages arrive."""
        asking = self.ask(number)
        await settle()
        self.deliver_all()
        return await asking

    def kill(self, number: int) -> None:
        """A worker is gone, with what it had sent and the hub has not received."""
        del self._workers[number]
        self._hub.ended(number)

    def deliver_from(self, number: int) -> Counts:
        """The hub receives the next message of a worker. Returns the counts in it."""
        message = self._workers[number].to_hub.popleft()
        self._hub.receive(number, message)
        return Counts.decode(message.counts)

    def deliver_to(self, number: int) -> None:
        """A worker receives the next message of the hub."""
        worker = self._workers[number]
        worker.num_delivered += 1
        worker.side.receive(worker.from_hub.popleft())

    def deliver_all(self) -> None:
        """Delivers until there is no message left."""
        while any(self._deliver_next(number) for number in list(self._workers)):
            pass

    def num_waiting_from(self, number: int) -> int:
        return len(self._workers[number].to_hub)

    def num_waiting_for(self, number: int) -> int:
        return len(self._workers[number].from_hub)

    def num_delivered_to(self, number: int) -> int:
        return self._workers[number].num_delivered

    def _deliver_next(self, number: int) -> bool:
        if self._workers[number].to_hub:
            self.deliver_from(number)
        elif self._workers[number].from_hub:
            self.deliver_to(number)
        else:
            return False
        return True

    def _send_to_worker(self, number: int, message: GatherCounts | AllCounts) -> None:
        self._workers[number].from_hub.append(message)
