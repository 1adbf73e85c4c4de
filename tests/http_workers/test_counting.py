"""What HTTP workers have counted is summed over all of them, and no counter ever goes back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from millstream.http_workers.counting import ANSWER_SECONDS
from millstream.metrics.counts import WORKER_ENDED, Counts
from tests.http_workers.simulation import Simulation, settle


@pytest.fixture
def workers() -> Iterator[Simulation]:
    """Three workers, which the hub knows."""
    simulation = Simulation(num_workers=3)
    simulation.deliver_all()
    yield simulation
    assert not simulation.timers.waiting, "a timer was left"


def num_started(counts: Counts) -> int:
    return counts.requests.num_started


async def test_all_workers_are_summed(workers: Simulation) -> None:
    for number, count in ((0, 1), (1, 20), (2, 300)):
        workers.count(number, count)
    for asked in range(3):
        counts = await workers.scrape(asked)
        assert num_started(counts) == 321
        assert counts.num_processes == 3
        assert counts.num_tasks == 3 * 7


async def test_one_worker_needs_nobody_else() -> None:
    workers = Simulation(num_workers=1)
    workers.deliver_all()
    workers.count(0, 5)
    assert num_started(await workers.scrape(0)) == 5
    assert not workers.timers.waiting


async def test_a_worker_that_has_not_begun_is_not_waited_for() -> None:
    workers = Simulation(num_workers=3)
    workers.deliver_from(0)
    workers.deliver_from(1)
    scrape = workers.ask(0)
    await settle()
    workers.deliver_from(0)
    workers.deliver_to(1)
    workers.deliver_from(1)
    workers.deliver_to(0)
    assert (await scrape).num_processes == 2


async def test_one_that_does_not_answer_counts_with_what_it_told_last(
    workers: Simulation,
) -> None:
    workers.count(2, 300)
    workers.report(2)
    workers.deliver_all()
    workers.count(2, 1)
    workers.count(1, 20)
    scrape = workers.ask(0)
    await settle()
    workers.deliver_from(0)
    workers.deliver_to(1)
    workers.deliver_from(1)
    assert workers.num_waiting_for(0) == 0
    assert workers.timers.seconds == [ANSWER_SECONDS]
    workers.timers.fire()
    workers.deliver_to(0)
    assert num_started(await scrape) == 320
    workers.deliver_all()  # the late answer counts all the same, for those who ask next
    assert num_started(await workers.scrape(1)) == 321


async def test_a_worker_that_is_killed_stays_in_the_sum(workers: Simulation) -> None:
    workers.count(1, 20)
    assert num_started(await workers.scrape(0)) == 20
    workers.kill(1)
    counts = await workers.scrape(0)
    assert num_started(counts) == 20
    assert counts.num_processes == 2
    assert counts.num_tasks == 2 * 7
    workers.start(1)
    workers.deliver_all()
    workers.count(1, 1)
    counts = await workers.scrape(1)
    assert num_started(counts) == 21
    assert counts.num_processes == 3


async def test_requests_of_a_worker_that_is_killed_have_failed(workers: Simulation) -> None:
    workers.count(1, 20)
    workers.finish(1, 15)
    workers.count(0, 1)
    before = await workers.scrape(0)
    assert before.requests.failed == {WORKER_ENDED: 0}
    workers.kill(1)
    after = await workers.scrape(0)
    assert after.requests.failed == {WORKER_ENDED: 5}
    assert after.requests.num_open == 1


async def test_what_a_worker_tells_at_its_end_is_not_lost(workers: Simulation) -> None:
    workers.count(1, 20)
    workers.finish(1, 20)
    workers.report(1)
    workers.deliver_from(1)
    workers.kill(1)
    counts = await workers.scrape(0)
    assert num_started(counts) == 20
    assert counts.requests.failed == {WORKER_ENDED: 0}


async def test_what_was_shown_by_a_worker_that_is_killed_then_stays(workers: Simulation) -> None:
    """It was asked itself, and had not told anybody before."""
    workers.count(0, 20)
    assert num_started(await workers.scrape(0)) == 20
    workers.kill(0)
    assert num_started(await workers.scrape(1)) == 20


async def test_one_that_ends_while_it_is_asked_is_not_waited_for(workers: Simulation) -> None:
    workers.count(1, 20)
    workers.report(1)
    workers.deliver_all()
    scrape = workers.ask(0)
    await settle()
    workers.deliver_from(0)
    workers.kill(1)
    workers.deliver_to(2)
    workers.deliver_from(2)
    workers.deliver_to(0)
    counts = await scrape
    assert num_started(counts) == 20
    assert counts.num_processes == 2


async def test_nobody_is_answered_who_has_ended(workers: Simulation) -> None:
    """The next worker with this number did not ask."""
    scrape = workers.ask(0)
    await settle()
    workers.deliver_from(0)
    workers.kill(0)
    workers.start(0)
    workers.deliver_all()
    assert workers.num_delivered_to(0) == 0
    assert not scrape.done()
    scrape.cancel()
    await settle()


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_scraper_that_leaves_is_forgotten(workers: Simulation, is_noticed: bool) -> None:
    """is_noticed: before the answer comes."""
    scrape = workers.ask(0)
    await settle()
    workers.deliver_from(0)
    scrape.cancel()
    if is_noticed:
        await settle()
    workers.deliver_all()
    workers.count(0, 3)
    assert num_started(await workers.scrape(0)) == 3


async def test_several_may_ask_at_once(workers: Simulation) -> None:
    workers.count(0, 1)
    scrapes = [workers.ask(number) for number in (0, 1, 0, 2)]
    await settle()
    workers.count(1, 20)
    workers.deliver_all()
    found = [num_started(counts) for counts in await asyncio.gather(*scrapes)]
    assert set(found) <= {1, 21}
    assert num_started(await workers.scrape(2)) == 21


def test_a_report_is_sent_only_if_something_has_changed() -> None:
    workers = Simulation(num_workers=1)
    workers.deliver_all()
    workers.report(0)
    assert workers.num_waiting_from(0) == 0
    workers.count(0, 1)
    workers.report(0)
    workers.report(0)
    assert workers.num_waiting_from(0) == 1


async def test_reports_are_made_from_the_start() -> None:
    workers = Simulation(num_workers=1)
    workers.deliver_all()
    workers.count(0, 5)
    reporting = asyncio.create_task(workers.keep_reporting(0))
    await settle()
    assert workers.num_waiting_from(0) == 1
    reporting.cancel()


class Schedule:
    """Anything that can happen to workers, in any order, and what is known of it.

    counted: requests of all workers that ever were. received, ended: those of which the hub was
    told, by workers that live, and by others. least, all_of_living: what it had been told when the
    scraper asked, and what the workers had counted then. is_undisturbed: it knew all workers then,
    none was killed or started since, and all were waited for.
    """

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.workers = Simulation(num_workers=4)
        self.counted = 0
        self.received: Counter[int] = Counter()
        self.ended = 0
        self.shown = Counts()
        self.scrape: asyncio.Task[Counts] | None = None
        self.asked = self.least = self.all_of_living = 0
        self.is_undisturbed = True
        self.num_scrapes = 0

    async def run(self, num_actions: int) -> None:
        actions = [self.count] * 6 + [self.tell] * 16 + [self.hear] * 16 + [self.report] * 2
        actions += [self.ask] * 4 + [self.start, self.kill, self.fire]
        for _ in range(num_actions):
            self.source.choice(actions)(self.source.randrange(4))
            await settle()
            self.look()
        if self.scrape is not None:
            self.scrape.cancel()
            await settle()

    def count(self, number: int) -> None:
        if number in self.workers.living:
            self.counted += 1
            requests, seconds = self.workers.counts(number).requests, self.source.expovariate(1)
            requests.num_started += 1
            requests.finished["stop"] += self.source.random() < 0.9
            requests.duration.observe(seconds)
            self.workers.counts(number).http.on_response("GET", "/", status=200, seconds=seconds)

    def tell(self, number: int) -> None:
        if number in self.workers.living and self.workers.num_waiting_from(number):
            self.received[number] = num_started(self.workers.deliver_from(number))

    def hear(self, number: int) -> None:
        if number in self.workers.living and self.workers.num_waiting_for(number):
            self.workers.deliver_to(number)

    def report(self, number: int) -> None:
        if number in self.workers.living:
            self.workers.report(number)

    def start(self, number: int) -> None:
        if number not in self.workers.living:
            self.is_undisturbed = False
            self.workers.start(number)

    def kill(self, number: int) -> None:
        if number in self.workers.living:
            self.is_undisturbed = False
            self.ended += self.received.pop(number, 0)
            self.workers.kill(number)
            if self.scrape is not None and self.asked == number:
                self.scrape.cancel()
                self.scrape = None

    def fire(self, number: int) -> None:
        if self.workers.timers.waiting and number == 0:
            self.is_undisturbed = False
            self.workers.timers.fire()

    def ask(self, number: int) -> None:
        if number in self.workers.living and self.scrape is None:
            self.scrape, self.asked = self.workers.ask(number), number
            self.is_undisturbed = self.received.keys() == set(self.workers.living)
            self.least = self.ended + self.received.total()
            living = [num_started(self.workers.counts(each)) for each in self.workers.living]
            self.all_of_living = self.ended + sum(living)

    def look(self) -> None:
        if self.scrape is None or not self.scrape.done():
            return
        counts, self.scrape = self.scrape.result(), None
        assert self.least <= num_started(counts) <= self.counted
        if self.is_undisturbed:
            assert num_started(counts) >= self.all_of_living
        self.check_against_shown(counts)
        self.shown = counts
        self.num_scrapes += 1

    def check_against_shown(self, counts: Counts) -> None:
        before, after = self.shown.requests, counts.requests
        assert after.num_started >= before.num_started
        assert after.num_open >= 0
        for name in ("finished", "failed", "cancelled"):
            assert getattr(after, name) >= getattr(before, name), name
        assert counts.http.responses >= self.shown.http.responses
        durations = [before.duration, after.duration]
        for one, other in (durations, [each.http.seconds["/"] for each in (self.shown, counts)]):
            assert other.total >= one.total
            assert all(a <= b for a, b in zip(one.counts, other.counts, strict=True))


def test_no_counter_goes_back() -> None:
    """Workers count, tell, are asked, killed and replaced in any order, and messages take any
    time. A scraper asks any of them, again when it has its answer or its worker is gone."""
    num_scrapes = 0
    for seed in range(60):
        schedule = Schedule(random.Random(seed))
        asyncio.run(schedule.run(500))
        num_scrapes += schedule.num_scrapes
    assert num_scrapes > 300
