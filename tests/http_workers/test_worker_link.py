"""A worker that cannot follow its hub says so to everybody it serves, and ends."""

from __future__ import annotations

import logging

import pytest
import zmq

from millstream.http_workers.messages import encode
from millstream.http_workers.shared_status import NUM_BYTES, StatusReader, StatusWriter
from millstream.http_workers.worker_link import WorkerLink
from millstream.runtime.host import new_endpoint
from millstream.runtime.messages import FromEngine, Loading
from millstream.shared_memory import SharedMemory
from tests.runtime.conftest import until


class Heard:
    """A listener that fails at the message it is told to fail at."""

    is_waiting = False

    def __init__(self, *, fails_at: str) -> None:
        self._fails_at = fails_at
        self.steps: list[str] = []
        self.ends: list[bool] = []
        self.num_drains = 0

    def on_message(self, message: FromEngine) -> None:
        assert isinstance(message, Loading)
        if message.step == self._fails_at:
            raise ZeroDivisionError
        self.steps.append(message.step)

    def on_end(self, how: str, *, is_final: bool) -> None:
        self.ends.append(is_final)

    def on_drain(self) -> None:
        self.num_drains += 1


@pytest.mark.parametrize("last", [encode(Loading("bad")), b"\xc1"], ids=["fault", "unknown"])
async def test_it_ends_when_it_cannot_follow(last: bytes, caplog: pytest.LogCaptureFixture) -> None:
    memory = SharedMemory.create(NUM_BYTES)
    StatusWriter(memory)
    heard, endpoint = Heard(fails_at="bad"), new_endpoint()
    with zmq.Context() as context, context.socket(zmq.PAIR) as hub:
        hub.bind(endpoint)
        link = WorkerLink(endpoint, StatusReader(memory), on_drain=heard.on_drain)
        link.start(heard)
        hub.send(encode(Loading("good")))
        await until(lambda: heard.steps == ["good"])
        assert (heard.ends, heard.num_drains) == ([], 0)
        with caplog.at_level(logging.ERROR):
            hub.send(last)
            await until(lambda: heard.num_drains == 1)
        assert heard.ends == [True]
        assert "nobody can follow the hub" in caplog.text
        await link.stop()


async def test_it_is_no_fault_to_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    memory = SharedMemory.create(NUM_BYTES)
    StatusWriter(memory)
    heard, endpoint = Heard(fails_at="bad"), new_endpoint()
    with zmq.Context() as context, context.socket(zmq.PAIR) as hub:
        hub.bind(endpoint)
        link = WorkerLink(endpoint, StatusReader(memory), on_drain=heard.on_drain)
        link.start(heard)
        await link.stop()
    assert (heard.ends, heard.num_drains, caplog.text) == ([], 0, "")
