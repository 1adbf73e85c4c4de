"""What the supervisor does when it is not the engine alone that goes wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from millstream.errors import EngineUnavailable, ShuttingDown, StartupError
from millstream.runtime import supervisor
from millstream.runtime.client import EngineClient
from millstream.runtime.host import EngineHost, ProcessHost
from millstream.runtime.restarts import Restarts
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.state import State
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from tests.fakes import FakeRunner, fake_info
from tests.runtime.conftest import GatedRunner, begin, collect, until

NO_DESCRIPTORS = OSError(errno.EMFILE, "Too many open files")
FLAW = LookupError("planted")


class FlawedHost(ThreadHost):
    """Raises the errors that it is given, one at each start, or in place of an engine's end."""

    def __init__(self, build_runner: Callable[[], Runner]) -> None:
        super().__init__(build_runner=build_runner, max_running=4)
        self.start_errors: list[Exception] = []
        self.wait_error: Exception | None = None
        self.num_starts = 0

    async def start(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.num_starts += 1
        if self.start_errors:
            raise self.start_errors.pop(0)
        await super().start(context, endpoint)

    async def wait(self) -> str:
        how = await super().wait()
        if self.wait_error is not None:
            raise self.wait_error
        return how


class Deadly(GatedRunner):
    """Ends its engine at the first step that it is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.error = SystemExit()  # no Exception: ends the thread, as a kill ends the process


def client_of(host: EngineHost) -> EngineClient:
    return supervised_client(host, max_running=4, max_waiting=4, engine_timeout=60)


async def test_a_process_is_reached_wherever_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
    client = client_of(ProcessHost(command, environment={}))
    client.start()
    try:
        await client.wait_ready()
        stream = begin(client)
        assert len(await collect(stream)) == 8
        stream.close()
        assert not list(folder.iterdir()), "an engine needs no files"
    finally:
        await client.stop()


async def test_an_engine_that_has_said_its_last_word_is_not_listened_to_any_longer() -> None:
    seconds = []
    for _ in range(5):  # a busy machine may hold up some
        client = client_of(ThreadHost(build_runner=lambda: FakeRunner(fake_info()), max_running=4))
        client.start()
        await client.wait_ready()
        began = time.perf_counter()
        await client.stop()
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.1


async def test_an_engine_that_cannot_be_started_again_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runners = [Deadly(), FakeRunner(fake_info())]
    host = FlawedHost(lambda: runners.pop(0))
    deadly = runners[0]
    client = client_of(host)
    client.start()
    await client.wait_ready()
    host.start_errors = [NO_DESCRIPTORS]
    stream = begin(client)
    assert isinstance(deadly, Deadly)
    deadly.allow(1)
    with pytest.raises(EngineUnavailable):
        await collect(stream)
    stream.close()
    await client.wait_ready()
    assert host.num_starts == 3
    assert "Too many open files" in caplog.text
    again = begin(client)
    assert len(await collect(again)) == 8
    again.close()
    await client.stop()


@pytest.mark.parametrize("error", [NO_DESCRIPTORS, FLAW], ids=["expected", "unexpected"])
async def test_a_first_start_that_cannot_be_made_is_told(error: Exception) -> None:
    host = FlawedHost(lambda: FakeRunner(fake_info()))
    host.start_errors = [error]
    client = client_of(host)
    client.start()
    with pytest.raises(StartupError, match=r"Too many open files|LookupError: planted"):
        await client.wait_ready()
    assert client.state is State.FAILED
    await client.stop()


async def test_a_supervisor_that_fails_leaves_nobody_waiting() -> None:
    runner = Deadly()
    host = FlawedHost(lambda: runner)
    client = client_of(host)
    client.start()
    await client.wait_ready()
    host.wait_error = FLAW
    stream = begin(client)
    runner.allow(1)
    with pytest.raises(EngineUnavailable):
        await collect(stream)
    stream.close()
    assert "LookupError: planted" in (await client.wait_failed()).message
    with pytest.raises(EngineUnavailable):
        client.open()
    await client.stop()


async def test_an_engine_that_nobody_can_follow_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FlawedHost(lambda: FakeRunner(fake_info()))
    client = client_of(host)
    client.start()
    await client.wait_ready()
    with monkeypatch.context() as patch:
        patch.setattr(client.streams, "deliver", lambda step: 1 / 0)
        stream = begin(client)
        with pytest.raises(EngineUnavailable):
            await collect(stream)
        stream.close()
    await client.wait_ready()
    assert host.num_starts == 2
    again = begin(client)
    assert len(await collect(again)) == 8
    again.close()
    await client.stop()


async def test_an_engine_that_ends_while_draining_is_told_and_not_replaced() -> None:
    runner = Deadly()
    host = FlawedHost(lambda: runner)
    client = client_of(host)
    client.start()
    await client.wait_ready()
    stream = begin(client)
    draining = asyncio.create_task(client.drain(grace=600))
    await asyncio.sleep(0)
    runner.allow(1)
    with pytest.raises(EngineUnavailable) as caught:
        await collect(stream)
    assert caught.value.code == "engine_dead"
    stream.close()
    await draining
    with pytest.raises(ShuttingDown):
        client.open()
    await client.stop()
    assert host.num_starts == 1


async def test_stopping_does_not_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    delays = iter([0.0, 600.0])
    monkeypatch.setattr(Restarts, "delay", lambda *_: next(delays))
    monkeypatch.setattr(supervisor, "_STOP_TIMEOUT", 600.0)
    runner = Deadly()
    host = FlawedHost(lambda: runner)
    client = client_of(host)
    client.start()
    await client.wait_ready()
    host.start_errors = [NO_DESCRIPTORS] * 100
    stream = begin(client)
    runner.allow(1)
    with pytest.raises(EngineUnavailable):
        await collect(stream)
    stream.close()
    await until(lambda: host.num_starts == 2)
    async with asyncio.timeout(60):
        await client.stop()
    assert host.num_starts == 2
