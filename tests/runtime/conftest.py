"""An engine in a thread with the fake runner, and a runner that stops where a test wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from millstream.core.plan import Plan, StepOutput
from millstream.core.request import Request
from millstream.runtime.client import EngineClient
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.stream import TokenStream
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from tests.fakes import FakeRunner, fake_info, make_request

EngineFactory = Callable[..., AbstractAsyncContextManager[EngineClient]]


class GatedRunner(FakeRunner):
    """Computes a step only when a test has allowed it: `allow(n)` lets n steps pass."""

    def __init__(self) -> None:
        super().__init__(fake_info(num_blocks=64))
        self._permits = threading.Semaphore(0)
        self.num_begun = 0
        self.error: BaseException | None = None

    def allow(self, steps: int) -> None:
        self._permits.release(steps)

    def step(self, plan: Plan) -> StepOutput:
        self.num_begun += 1
        self._permits.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return super().step(plan)


@pytest.fixture
def run_engine_client() -> EngineFactory:
    @asynccontextmanager
    async def run(
        build: Callable[[], Runner],
        *,
        max_running: int = 4,
        max_waiting: int = 4,
        max_waiting_tokens: int | None = None,
        max_queue_seconds: float | None = None,
        engine_timeout: float = 60.0,
    ) -> AsyncIterator[EngineClient]:
        client = supervised_client(
            ThreadHost(
                build_runner=build, max_running=max_running, max_queue_seconds=max_queue_seconds
            ),
            max_running=max_running,
            max_waiting=max_waiting,
            max_waiting_tokens=max_waiting_tokens,
            engine_timeout=engine_timeout,
        )
        client.start()
        try:
            await client.wait_ready()
            yield client
        finally:
            await client.stop()

    return run


def begin(
    client: EngineClient, prompt: tuple[int, ...] = (1, 2), max_tokens: int = 8
) -> TokenStream:
    """Opens and starts a stream for a small request."""
    stream = client.open()
    stream.start(request_for(stream, prompt, max_tokens))
    return stream


def request_for(stream: TokenStream, prompt: tuple[int, ...], max_tokens: int) -> Request:
    return make_request(stream.id, prompt, max_tokens=max_tokens)


async def collect(stream: TokenStream) -> list[int]:
    """All tokens of a stream, to its end."""
    return [token async for events in stream for event in events for token in event.token_ids]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something another thread causes; the deadline is only for a broken test."""
    deadline = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "did not happen in time"
        await asyncio.sleep(0.002)
