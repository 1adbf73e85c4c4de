"""The client and its engine: admission, endings, cancelling, failures, death and restart."""

from __future__ import annotations

import asyncio
import time

import pytest

from millstream.core.plan import INVALID_TOKEN, StepOutput
from millstream.core.status import Statistics
from millstream.errors import (
    ContextTooLong,
    EngineUnavailable,
    GenerationFailed,
    GenerationTimeout,
    Overloaded,
    ShuttingDown,
    StartupError,
)
from millstream.runtime.state import State
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from tests.fakes import FakeRunner, alone, fake_info
from tests.runtime.conftest import (
    EngineFactory,
    GatedRunner,
    begin,
    collect,
    request_for,
    until,
)


def is_clean(statistics: Statistics) -> bool:
    used = (statistics.num_running, statistics.num_waiting, statistics.num_blocks_used)
    return used == (0, 0, 0)


async def test_streams_answer_as_alone_and_leave_nothing(run_engine_client: EngineFactory) -> None:
    async with run_engine_client(lambda: FakeRunner(fake_info())) as client:
        streams = [begin(client, (index, 5), max_tokens=10) for index in range(8)]
        expected = [alone(request_for(s, (i, 5), 10)) for i, s in enumerate(streams)]
        assert await asyncio.gather(*map(collect, streams)) == expected
        for stream in streams:
            stream.close()
        assert client.num_open == 0
        await until(lambda: is_clean(client.statistics))


async def test_refusal_is_immediate_and_the_place_comes_back(
    run_engine_client: EngineFactory,
) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1, max_waiting=1) as client:
        first, second = begin(client), begin(client)
        with pytest.raises(Overloaded) as caught:
            client.open()
        assert caught.value.retry_after in range(7, 11)  # two places in a guessed 15 s, and chance
        second.close()
        third = begin(client)
        runner.allow(100)
        assert len(await collect(third)) == 8
        assert len(await collect(first)) == 8
        first.close()
        third.close()


async def test_never_more_running_than_allowed(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=2, max_waiting=6) as client:
        streams = [begin(client) for _ in range(8)]
        runner.allow(1)
        await until(lambda: client.statistics.num_running > 0)
        assert client.statistics.num_running <= 2
        runner.allow(1000)
        await asyncio.gather(*map(collect, streams))
        for stream in streams:
            stream.close()


async def test_closing_cancels_running_and_waiting(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1) as client:
        running, waiting = begin(client, max_tokens=100), begin(client)
        runner.allow(3)
        await anext(running)
        running.close()
        waiting.close()
        running.close()
        runner.allow(10)
        await until(lambda: is_clean(client.statistics))
        assert client.num_open == 0
        assert runner.num_steps <= 5, "went on after the cancel"


async def test_a_slow_reader_gets_everything_in_one_batch(run_engine_client: EngineFactory) -> None:
    async with run_engine_client(lambda: FakeRunner(fake_info())) as client:
        stream = begin(client, max_tokens=20)
        await until(lambda: is_clean(client.statistics) and stream.is_ended)
        batch = await anext(stream)
        assert len(batch) == 20
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        stream.close()


async def test_failing_step_fails_its_requests_only(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1) as client:
        victim, other = begin(client), begin(client)
        runner.error = RuntimeError("planted failure")
        runner.allow(100)
        with pytest.raises(GenerationFailed) as caught:
            await collect(victim)
        assert caught.value.code == "step_failed"
        assert "planted" not in caught.value.message, "internals must not reach clients"
        assert len(await collect(other)) == 8
        assert client.state is State.READY
        victim.close()
        other.close()
        await until(lambda: is_clean(client.statistics))


async def test_invalid_logits_fail_one_row(run_engine_client: EngineFactory) -> None:
    class Poisoned(FakeRunner):
        def step(self, plan):  # type: ignore[no-untyped-def]
            tokens = super().step(plan).tokens
            chunks = [chunk for chunk in plan.chunks if chunk.is_last]
            return StepOutput(
                [
                    INVALID_TOKEN if (chunk.request_id, chunk.num_generated) == (1, 3) else token
                    for chunk, token in zip(chunks, tokens, strict=True)
                ]
            )

    async with run_engine_client(lambda: Poisoned(fake_info())) as client:
        victim, other = begin(client), begin(client)
        with pytest.raises(GenerationFailed) as caught:
            await collect(victim)
        assert caught.value.code == "nan_logits"
        assert await collect(other) == alone(request_for(other, (1, 2), 8))
        victim.close()
        other.close()
        await until(lambda: is_clean(client.statistics))


async def test_prompt_that_leaves_no_room_is_refused_with_numbers(
    run_engine_client: EngineFactory,
) -> None:
    async with run_engine_client(lambda: FakeRunner(fake_info(num_blocks=4))) as client:
        assert client.check_length(num_prompt=15) == 1
        with pytest.raises(ContextTooLong, match=r"16 tokens.* 16 tokens"):
            client.check_length(num_prompt=16)


async def test_dead_engine_fails_everyone_and_comes_back(run_engine_client: EngineFactory) -> None:
    class Deadly(GatedRunner):
        def step(self, plan):  # type: ignore[no-untyped-def]
            self._permits.acquire()
            raise SystemExit  # not an Exception: ends the thread, as a kill ends the process

    runners = [Deadly(), FakeRunner(fake_info())]
    built = iter(runners)
    async with run_engine_client(lambda: next(built)) as client:
        streams = [begin(client), begin(client)]
        assert isinstance(runners[0], Deadly)
        runners[0].allow(1)
        for stream in streams:
            with pytest.raises(EngineUnavailable) as caught:
                await collect(stream)
            assert caught.value.code == "engine_dead"
            stream.close()
        await client.wait_ready()
        again = begin(client)
        assert len(await collect(again)) == 8
        again.close()


async def test_nothing_is_admitted_while_loading() -> None:
    host = ThreadHost(build_runner=lambda: FakeRunner(fake_info()), max_running=1)
    client = supervised_client(host, max_running=1, max_waiting=0, engine_timeout=60)
    assert client.state is State.LOADING
    with pytest.raises(EngineUnavailable):
        client.open()


async def test_start_failure_is_told_once() -> None:
    def build() -> FakeRunner:
        raise StartupError("the reason")

    client = supervised_client(
        ThreadHost(build_runner=build, max_running=1),
        max_running=1,
        max_waiting=0,
        engine_timeout=60,
    )
    client.start()
    with pytest.raises(StartupError, match="the reason"):
        await client.wait_ready()
    assert client.state is State.FAILED
    await client.stop()


async def test_drain_waits_then_fails_the_rest(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=2) as client:
        quick, endless = begin(client, max_tokens=2), begin(client, max_tokens=100)
        draining = asyncio.create_task(client.drain(grace=600))
        await asyncio.sleep(0)
        assert client.state is State.DRAINING
        with pytest.raises(ShuttingDown):
            client.open()
        runner.allow(2)
        assert len(await collect(quick)) == 2
        quick.close()
        assert not draining.done()
        await client.drain(grace=0)
        with pytest.raises(ShuttingDown):
            await collect(endless)
        endless.close()
        await draining
        runner.allow(1)


async def test_stuck_step_is_noticed_and_the_engine_killed() -> None:
    """A thread cannot be killed, so the host here lets the gate open when it is asked to."""
    runner = GatedRunner()

    class KillableHost(ThreadHost):
        num_kills = 0

        def kill(self) -> None:
            self.num_kills += 1
            runner.allow(1000)

    host = KillableHost(build_runner=lambda: runner, max_running=1)
    client = supervised_client(host, max_running=1, max_waiting=0, engine_timeout=0.2)
    client.start()
    await client.wait_ready()
    stream = begin(client)
    assert len(await collect(stream)) == 8
    assert host.num_kills >= 1
    stream.close()
    assert not client.is_waiting, "an idle engine is not stuck"
    await client.stop()


async def test_an_engine_is_not_blamed_for_a_server_that_stood_still() -> None:
    """As when both processes are stopped for a while: the server's clock goes on meanwhile."""
    runner = GatedRunner()

    class WatchedHost(ThreadHost):
        has_ended = False

        def kill(self) -> None:
            self.has_ended = True

    host = WatchedHost(build_runner=lambda: runner, max_running=1)
    client = supervised_client(host, max_running=1, max_waiting=0, engine_timeout=0.8)
    client.start()
    await client.wait_ready()
    stream = begin(client)
    await asyncio.sleep(0.3)  # it has looked
    time.sleep(1.0)  # noqa: ASYNC251, nothing in this process goes on
    await asyncio.sleep(0.3)
    assert not host.has_ended
    runner.allow(1000)
    assert len(await collect(stream)) == 8
    stream.close()
    await client.stop()


async def test_places_are_taken_together_or_not_at_all(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=2, max_waiting=2) as client:
        first = client.open()
        with pytest.raises(Overloaded):
            client.open_many(4)
        assert client.num_open == 1
        for stream in [first, *client.open_many(3)]:
            stream.close()
        assert client.num_open == 0


async def test_queue_is_bounded_by_prompt_tokens(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1, max_waiting_tokens=20) as client:
        long = begin(client, (1,) * 30, max_tokens=2)  # alone, so it is taken
        refused = client.open()
        with pytest.raises(Overloaded, match="30 prompt tokens"):
            refused.start(request_for(refused, (2,), 2))
        refused.close()
        runner.allow(1)
        assert await anext(long)
        others = [begin(client, (2,) * 10, max_tokens=2) for _ in range(2)]
        refused = client.open()
        with pytest.raises(Overloaded, match="20 prompt tokens"):
            refused.start(request_for(refused, (3,), 2))
        refused.close()
        runner.allow(100)
        for stream in (*others, long):
            await collect(stream)
            stream.close()
        assert client.num_waiting_tokens == 0
        await until(lambda: is_clean(client.statistics))


async def test_request_that_takes_too_long_fails_and_is_cancelled(
    run_engine_client: EngineFactory,
) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=2) as client:
        late, other = client.open(), begin(client, (7, 8), max_tokens=3)
        late.limit_time(0.01)
        late.start(request_for(late, (1, 2), 50))
        with pytest.raises(GenerationTimeout, match=r"after 0\.01 s"):
            await collect(late)
        assert client.num_open == 1
        runner.allow(100)
        assert await collect(other) == alone(request_for(other, (7, 8), 3))
        other.close()
        late.close()
        await until(lambda: is_clean(client.statistics))


async def test_time_limit_ends_with_the_request(run_engine_client: EngineFactory) -> None:
    async with run_engine_client(lambda: FakeRunner(fake_info())) as client:
        stream = client.open()
        stream.limit_time(60)
        stream.start(request_for(stream, (1, 2), 3))
        await collect(stream)
        assert not stream.is_timed
        stream.close()
