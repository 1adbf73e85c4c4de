"""How far a start is, from whoever builds the runner to whoever asks the client."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import zmq

from millstream.core.status import unreported
from millstream.runtime.engine_side import run_engine
from millstream.runtime.messages import Loading, Ready, Stop, decode_from_engine, encode
from millstream.runtime.runner_protocol import Runner
from millstream.runtime.start_reports import StartReports
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from tests.fakes import FakeRunner, fake_info


@pytest.fixture
def socket() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.bind("inproc://reports")
        yield socket


def test_an_engine_tells_until_it_is_ready(socket: zmq.Socket[bytes]) -> None:
    reports = StartReports()

    def build() -> Runner:
        reports("loading weights", 0.25)
        reports("comparing logits")
        return FakeRunner(fake_info())

    engine = threading.Thread(
        target=lambda: run_engine(
            context=socket.context,
            endpoint="inproc://reports",
            build_runner=build,
            max_running=1,
            reports=reports,
        )
    )
    engine.start()
    told = [decode_from_engine(socket.recv()) for _ in range(3)]
    assert told == [
        Loading("loading weights", 0.25),
        Loading("comparing logits"),
        Ready(fake_info()),
    ]
    reports("too late")
    socket.send(encode(Stop()))
    engine.join()
    while socket.poll(0):
        assert not isinstance(decode_from_engine(socket.recv()), Loading), "it was over"


async def test_the_client_knows_it_while_it_starts() -> None:
    host = ThreadHost(build_runner=lambda: FakeRunner(fake_info()), max_running=1)
    client = supervised_client(host, max_running=1, max_waiting=0, engine_timeout=60)
    assert client.progress is None
    client.start()
    assert client.progress == Loading("starting the engine")
    client.on_message(Loading("loading weights", 0.25))
    assert client.progress == Loading("loading weights", 0.25)
    await client.wait_ready()
    assert client.progress is None
    await client.stop()


def test_nobody_need_follow() -> None:
    unreported("loading weights", 0.5)
    StartReports()("loading weights", 0.5)
