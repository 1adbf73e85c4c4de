"""One engine behind several workers: each gets its own, and nobody notices the others."""

from __future__ import annotations

import asyncio
from itertools import count, islice
from random import Random

import pytest

from millstream.core.request import FailureCode, FailureEvent, TokenEvent
from millstream.core.status import Statistics
from millstream.errors import EngineUnavailable, MillstreamError, Overloaded
from millstream.http_workers.hub import split
from millstream.http_workers.numbering import request_ids, worker_of
from millstream.runtime.client import EngineClient
from millstream.runtime.messages import Loading, Ready, Step, Wait
from millstream.runtime.state import State
from tests.fakes import FakeRunner, alone, fake_info, make_request
from tests.http_workers.conftest import NUM_WORKERS, WorkersFactory
from tests.runtime.conftest import GatedRunner, begin, collect, until


def runner() -> FakeRunner:
    return FakeRunner(fake_info(num_blocks=256))


async def answered(client: EngineClient, prompt: tuple[int, ...], max_tokens: int) -> None:
    """Asks for an answer, and sees that it is what the request gets alone."""
    stream = client.open()
    request = make_request(stream.id, prompt, max_tokens=max_tokens)
    try:
        stream.start(request)
        assert await collect(stream) == alone(request)
    finally:
        stream.close()


def test_ids_tell_whose_they_are_and_are_never_used_again() -> None:
    seen = set[int]()
    for worker in (0, 1, 63):
        for start in (0, 1, 65_535):
            ids = list(islice(request_ids(worker, start=start), 1_000))
            assert {worker_of(one) for one in ids} == {worker}
            assert not seen.intersection(ids)
            seen.update(ids)
    assert max(seen) < 2**63


def test_a_step_is_split_and_nothing_of_it_is_lost() -> None:
    mine, others = (
        [next(request_ids(0, start=0)) + n for n in range(3)],
        next(request_ids(2, start=0)),
    )
    statistics = Statistics(num_running=3)
    step = Step(
        tokens=[TokenEvent(mine[0], (1,), None, 0), TokenEvent(others, (2,), "stop", 0)],
        failures=[FailureEvent(mine[1], FailureCode.STEP_FAILED, "so")],
        statistics=statistics,
        waits=[Wait(mine[2], 0.5), Wait(others, 0.25)],
        compilations=[0.125],
    )
    parts = split(step)
    assert parts == {
        0: Step(step.tokens[:1], step.failures, statistics, step.waits[:1], [0.125]),
        2: Step(step.tokens[1:], [], statistics, step.waits[1:]),
    }
    assert split(Step([], [], statistics)) == {}
    assert split(Step([], [], statistics, [], [1.0])) == {0: Step([], [], statistics, [], [1.0])}


async def test_all_workers_hear_of_the_engine_and_of_their_own_requests(
    run_workers: WorkersFactory,
) -> None:
    async with run_workers(runner) as workers:
        for client in workers.clients.values():
            assert client.state is State.READY
            assert client.info == workers.hub.readiness.info
        for told in workers.told.values():
            assert isinstance(told[-1], Ready)
            assert all(isinstance(each, Loading | Ready) for each in told)
            told.clear()
        await answered(workers.clients[1], (1, 2, 3), 6)
        assert workers.told[0] == workers.told[2] == []
        assert sum(len(e.token_ids) for s in workers.told[1] for e in s.tokens) == 6  # type: ignore[union-attr]
        assert workers.hub.num_generated_tokens == 6


async def test_everybody_sees_how_the_engine_stands(run_workers: WorkersFactory) -> None:
    gated = GatedRunner()
    async with run_workers(lambda: gated, limit=4, max_running=1) as workers:
        first, second, _ = workers.clients.values()
        streams = [begin(first), begin(second)]
        gated.allow(3)
        await until(lambda: workers.hub.statistics.num_waiting == 1)
        for client in workers.clients.values():
            assert (client.num_open, client.statistics.num_running) == (2, 1)
            assert client.statistics.num_waiting == 1
            assert client.silence is not None
        assert second.streams.queue_position(streams[1]) == 1
        with pytest.raises(Overloaded):
            first.open_many(3)
        third = second.open_many(2)
        with pytest.raises(Overloaded):
            workers.clients[2].open()
        for stream in (*third, *streams):
            stream.close()
        gated.allow(100)
        await until(lambda: first.statistics.num_running == 0)
        for client in workers.clients.values():
            assert (client.num_open, client.silence) == (0, None)


async def test_a_worker_that_ends_gives_everything_back(run_workers: WorkersFactory) -> None:
    gated = GatedRunner()
    async with run_workers(lambda: gated, limit=4, max_running=4) as workers:
        survivor = begin(workers.clients[0], (5, 6), max_tokens=12)
        for _ in range(3):
            begin(workers.clients[1], max_tokens=60)
        gated.allow(4)
        await until(lambda: workers.clients[0].statistics.num_running == 4)
        await workers.kill(1)
        assert workers.clients[0].num_open == 1
        gated.allow(1_000)
        assert await collect(survivor) == alone(make_request(survivor.id, (5, 6), max_tokens=12))
        survivor.close()
        await until(lambda: workers.clients[2].statistics.num_blocks_used == 0)
        assert workers.hub.is_waiting is False
        replaced = workers.begin(1)
        assert replaced.state is State.READY
        await answered(replaced, (7, 8), 5)


async def test_what_was_on_its_way_to_a_worker_that_ended_is_nothing_to_its_successor(
    run_workers: WorkersFactory,
) -> None:
    gated = GatedRunner()
    async with run_workers(lambda: gated) as workers:
        begin(workers.clients[1], (1, 2, 3), max_tokens=50)
        await until(lambda: gated.num_begun == 1)
        # The step of its request is being computed while it ends.
        await workers.kill(1)
        replaced = workers.begin(1)
        stream = begin(replaced, (7, 8), max_tokens=5)
        gated.allow(100)
        assert await collect(stream) == alone(make_request(stream.id, (7, 8), max_tokens=5))
        stream.close()


async def test_an_engine_that_dies_fails_the_requests_of_all_workers(
    run_workers: WorkersFactory,
) -> None:
    gated = GatedRunner()
    async with run_workers(lambda: gated) as workers:
        streams = [begin(client, max_tokens=50) for client in workers.clients.values()]
        gated.error = SystemExit("it dies")
        gated.allow(1)
        for stream in streams:
            with pytest.raises(EngineUnavailable) as error:
                await collect(stream)
            assert error.value.code == "engine_dead"
            stream.close()
        assert not workers.hub.is_waiting
        gated.allow(10_000)
        await workers.hub.readiness.wait_ready()
        for client in workers.clients.values():
            assert client.state is State.READY
            assert (client.num_open, client.history.num_restarts) == (0, 1)
            await answered(client, (3, 4), 4)


async def test_who_comes_while_the_engine_loads_hears_when_it_is_ready(
    run_workers: WorkersFactory,
) -> None:
    async with run_workers(runner) as workers:
        await workers.kill(2)
        workers.told[2].clear()
        workers.begin(2)
        assert [type(each) for each in workers.told[2]] == [Ready]
        workers.hub.drain()
        assert [link.drains for link in workers.links.values()] == [1, 1, 1]
        await workers.kill(2)
        workers.begin(2)
        assert workers.links[2].drains == 1


@pytest.mark.parametrize("seed", range(8))
async def test_random_schedules_of_several_workers(seed: int, run_workers: WorkersFactory) -> None:
    """Requests, cancels, readers that leave and workers that end: who is answered is answered as
    alone, and in the end nothing is held by anybody."""
    random, limit = Random(seed), 12
    async with run_workers(runner, limit=limit, max_running=5) as workers:
        numbers, asking = count(), set[asyncio.Task[None]]()

        async def ask(worker: int) -> None:
            client = workers.clients[worker]
            name = f"n{next(numbers)}"
            try:
                (stream,) = client.open_many(1, names=(name,))
            except Overloaded:
                assert client.num_open == limit
                return
            prompt = tuple(random.randrange(50) for _ in range(random.randint(1, 40)))
            request = make_request(stream.id, prompt, max_tokens=random.randint(1, 30))
            fate, read = random.choice(["read", "read", "leave", "cancel"]), list[int]()
            try:
                stream.start(request)
                async for events in stream:
                    assert client.num_open <= limit
                    read += [token for event in events for token in event.token_ids]
                    if fate != "read" and len(read) > 3:
                        if fate == "leave":
                            break
                        assert client.cancel(name) or stream.is_ended
            except MillstreamError:
                assert fate == "cancel"
            assert read == alone(request)[: len(read)]
            assert fate != "read" or read == alone(request)
            stream.close()  # not if it is cancelled: that stands for a process that is gone

        for _ in range(60):
            worker = random.randrange(NUM_WORKERS)
            if random.random() < 0.1:
                gone = {task for task in asking if task.get_name() == str(worker)}
                asking -= gone
                await workers.kill(worker)
                for task in gone:
                    task.cancel()
                await asyncio.gather(*gone, return_exceptions=True)
                workers.begin(worker)
            else:
                asking.add(asyncio.create_task(ask(worker), name=str(worker)))
            if random.random() < 0.3:
                await until(lambda: not workers.hub.is_waiting)
            else:
                await asyncio.sleep(0)
        await asyncio.gather(*asking)
        await until(lambda: workers.hub.statistics.num_blocks_used == 0)
        assert workers.hub.num_open == 0
        assert not workers.hub.is_waiting
