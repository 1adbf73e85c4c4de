"""The running count of waiting prompt tokens: every way to stop waiting, and the bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest

from millstream.errors import MillstreamError, Overloaded
from millstream.runtime.client import EngineClient
from millstream.runtime.stream import TokenStream
from millstream.runtime.waiting import WaitingPrompts
from tests.fakes import make_request
from tests.runtime.conftest import EngineFactory, GatedRunner, begin, collect, request_for, until


class Scene:
    """One request that runs and has a token, then two that wait: of 5 and of 7 prompt tokens."""

    def __init__(self, client: EngineClient, runner: GatedRunner) -> None:
        self.client, self.runner = client, runner
        self.running = begin(client, (1,) * 3, max_tokens=50)
        (self.victim,) = client.open_many(1, names=("victim",))
        self.other = client.open()
        self.lengths = {self.running.id: 3, self.victim.id: 5, self.other.id: 7}
        self.told = {self.running.id}

    async def begin(self, *, timeout: float | None = None) -> None:
        self.runner.allow(1)
        await anext(self.running)
        await until(lambda: self.runner.num_begun == 2)
        if timeout is not None:
            self.victim.limit_time(timeout)
        self.victim.start(request_for(self.victim, (2,) * 5, 4))
        self.other.start(request_for(self.other, (3,) * 7, 4))
        assert self.count() == 12

    def count(self) -> int:
        """The count; fails if it is not the sum over all streams."""
        waiting = sum(
            self.lengths[stream.id]
            for stream in self.client.streams
            if stream.is_started and not stream.is_ended and stream.id not in self.told
        )
        assert self.client.num_waiting_tokens == waiting
        return waiting

    async def stop_running(self) -> None:
        """Lets the step that runs end; the next one is the victim's, and is held up."""
        self.running.close()
        self.runner.allow(1)
        await until(lambda: self.runner.num_begun == 3)


async def close(scene: Scene) -> None:
    scene.victim.close()
    scene.victim.close()


async def cancel_by_name(scene: Scene) -> None:
    assert scene.client.cancel("victim")


async def time_out(scene: Scene) -> None:
    await ended(scene.victim)


async def first_token(scene: Scene) -> None:
    await scene.stop_running()
    scene.runner.allow(1)
    await anext(scene.victim)
    scene.told.add(scene.victim.id)


async def finish(scene: Scene) -> None:
    await scene.stop_running()
    scene.runner.allow(4)
    await collect(scene.victim)


async def failing_step(scene: Scene) -> None:
    await scene.stop_running()
    scene.runner.error = RuntimeError("planted")
    scene.runner.allow(1)
    await ended(scene.victim)


async def death(scene: Scene) -> None:
    scene.runner.error = SystemExit()  # not an Exception: ends the thread
    scene.runner.allow(1)
    await ended(scene.victim)
    await scene.client.wait_ready()


async def drain(scene: Scene) -> None:
    await scene.client.drain(grace=0)


async def stop(scene: Scene) -> None:
    scene.runner.allow(1000)
    await scene.client.stop()


async def ended(stream: TokenStream) -> None:
    with pytest.raises(MillstreamError):
        await collect(stream)


@pytest.mark.parametrize(
    ("ending", "left"),
    [
        *((close, 7), (cancel_by_name, 7), (time_out, 7), (first_token, 7), (finish, 7)),
        *((failing_step, 7), (death, 0), (drain, 0), (stop, 0)),
    ],
)
async def test_the_count_is_the_sum_however_waiting_ends(
    run_engine_client: EngineFactory, ending: Callable[[Scene], Awaitable[None]], left: int
) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1) as client:
        scene = Scene(client, runner)
        await scene.begin(timeout=0.01 if ending is time_out else None)
        await ending(scene)
        assert scene.count() == left
        for stream in (scene.victim, scene.running, scene.other):
            stream.close()
            scene.count()
        assert scene.count() == 0
        assert client.num_waiting_tokens == 0
        runner.allow(1000)


async def test_what_is_refused_or_never_starts_is_not_counted(
    run_engine_client: EngineFactory,
) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1, max_waiting_tokens=10) as client:
        first, refused = begin(client, (1,) * 6), client.open()
        (gone,) = client.open_many(1, names=("gone",))
        with pytest.raises(Overloaded, match="6 prompt tokens"):
            refused.start(request_for(refused, (2,) * 5, 1))
        client.cancel("gone")
        with pytest.raises(MillstreamError, match="cancelled"):
            gone.start(request_for(gone, (3,), 1))
        assert client.num_waiting_tokens == 6
        for stream in (refused, gone, first):
            stream.close()
        assert client.num_waiting_tokens == 0
        runner.allow(100)


def test_the_bound() -> None:
    waiting = WaitingPrompts(limit=10)

    def add(*numbers: int, length: int = 5, follows: int | None = None) -> None:
        for number in numbers:
            waiting.add(make_request(number, (1,) * length, follows=follows))

    add(1, 2)
    with pytest.raises(Overloaded, match="10 prompt tokens"):
        add(3)
    add(4, 5, follows=1)
    waiting.remove(1)
    waiting.remove(1)
    waiting.remove(99)
    assert waiting.num_tokens == 5
    with pytest.raises(Overloaded):
        add(6, length=6)
    waiting.remove(2)
    add(7, length=30)  # alone, so it is taken
    add(8, length=30, follows=7)  # and with it those who share its prompt
    with pytest.raises(Overloaded):
        add(9, length=1)
    assert waiting.num_tokens == 30


@pytest.mark.parametrize("seed", range(5))
def test_the_count_is_the_sum_in_any_order(seed: int) -> None:
    random, waiting, known = Random(seed), WaitingPrompts(limit=None), dict[int, int]()
    for number in range(1, 300):
        if random.random() < 0.6:
            known[number] = random.randint(1, 50)
            waiting.add(make_request(number, (1,) * known[number]))
        else:
            gone = random.randint(1, number)
            known.pop(gone, None)
            waiting.remove(gone)
        assert waiting.num_tokens == sum(known.values())
