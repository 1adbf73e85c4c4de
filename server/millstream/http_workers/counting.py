"""How one HTTP worker comes to know what all workers of a server have counted.

It asks the hub, and says what it has counted itself. The hub asks the others, and answers when all
have told it; one that has not after ANSWER_SECONDS counts with what it told last. Without being
asked, each worker tells its counts every REPORT_SECONDS if they have changed, and when it ends.

Rules:
1. What is shown has passed the hub first, the counts of the worker that shows it too. So what is
   lost with a worker that is killed was never shown, and no counter falls.
2. What a worker told last is its own until it ends. Then it becomes part of the sum over those that
   have ended, and the next worker with its number begins with nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from millstream.http_workers.count_messages import AllCounts, AskCounts, GatherCounts, TellCounts
from millstream.metrics.counts import WORKER_ENDED, Counts, summed

ANSWER_SECONDS = 1.0
REPORT_SECONDS = 1.0


class Timer(Protocol):
    """What is to happen at some time, unless it is cancelled."""

    def cancel(self) -> object: ...


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Timer]
"""Has something called after so many seconds, as `loop.call_later()` does."""


@dataclass(frozen=True, slots=True)
class _Gathering:
    """asker, ask: who gets the answer, and its number there. missing: workers that are to tell."""

    asker: int
    ask: int
    missing: set[int]
    timer: Timer


class CountKeeper:
    """The hub's side: what each worker told last, and the sum over those that have ended.

    For the event loop's thread. A worker is known from the first message that it sends.
    """

    def __init__(
        self,
        send: Callable[[int, GatherCounts | AllCounts], None],
        *,
        call_later: CallLater | None = None,
    ) -> None:
        """send: to the worker with a number. call_later: the event loop's if there is none."""
        self._send = send
        self._call_later = call_later or _call_later
        self._last: dict[int, bytes] = {}
        self._ended = Counts()
        self._ended.requests.failed[WORKER_ENDED] = 0  # shown before there is one
        self._gatherings: dict[int, _Gathering] = {}
        self._numbers = itertools.count()

    def receive(self, worker: int, message: AskCounts | TellCounts) -> None:
        """Takes a message of the worker with this number."""
        self._last[worker] = message.counts
        if isinstance(message, AskCounts):
            self._gather(worker, message.ask)
        elif message.gathering is not None:
            self._has_told(message.gathering, worker)

    def ended(self, worker: int) -> None:
        """A worker has ended, and everything that it had sent has been received."""
        counts = self._last.pop(worker, None)
        if counts is not None:
            self._ended.add(Counts.decode(counts).when_ended())
        for number, gathering in list(self._gatherings.items()):
            if gathering.asker == worker:
                self._gatherings.pop(number).timer.cancel()
            else:
                self._has_told(number, worker)

    def _gather(self, asker: int, ask: int) -> None:
        number, others = next(self._numbers), self._last.keys() - {asker}
        timer = self._call_later(ANSWER_SECONDS, lambda: self._answer(number))
        self._gatherings[number] = _Gathering(asker, ask, others, timer)
        for worker in sorted(others):
            self._send(worker, GatherCounts(number))
        if not others:
            self._answer(number)

    def _has_told(self, number: int, worker: int) -> None:
        gathering = self._gatherings.get(number)
        if gathering is None:
            return  # answered without it
        gathering.missing.discard(worker)
        if not gathering.missing:
            self._answer(number)

    def _answer(self, number: int) -> None:
        gathering = self._gatherings.pop(number)
        gathering.timer.cancel()
        counts = [self._ended.encode(), *self._last.values()]
        self._send(gathering.asker, AllCounts(gathering.ask, counts))


class WorkerCounts:
    """A worker's side: knows what all have counted, and tells what this one has.

    For the event loop's thread. own: what this worker has counted now.
    """

    def __init__(
        self, own: Callable[[], Counts], send: Callable[[AskCounts | TellCounts], None]
    ) -> None:
        self._own = own
        self._send = send
        self._told = b""
        self._asks: dict[int, asyncio.Future[list[bytes]]] = {}
        self._numbers = itertools.count()

    async def all(self) -> Counts:
        """The counts of all workers, those that have ended included."""
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._asks[number] = answer
        try:
            self._send(AskCounts(number, self._own().encode()))
            return summed(map(Counts.decode, await answer))
        finally:
            del self._asks[number]

    def receive(self, message: GatherCounts | AllCounts) -> None:
        """Takes a message of the hub."""
        if isinstance(message, GatherCounts):
            self._send(TellCounts(self._own().encode(), message.gathering))
            return
        answer = self._asks.get(message.ask)
        if answer is not None and not answer.done():  # else nobody waits for it any more
            answer.set_result(message.counts)

    def report(self) -> None:
        """Tells the hub if something has changed since the last report. To be called at the
        beginning, from which on this worker is counted, and when it ends."""
        counts = self._own().encode()
        if counts != self._told:
            self._told = counts
            self._send(TellCounts(counts))

    async def keep_reporting(self) -> None:
        """Reports now and again and again, for as long as it is not cancelled."""
        while True:
            self.report()
            await asyncio.sleep(REPORT_SECONDS)


def _call_later(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)
