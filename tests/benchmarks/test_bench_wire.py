"""The benchmark of the HTTP process: what its figures are made of, and that it runs."""

from __future__ import annotations

import json
import os
import socket
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from benchmarks.micro import wire
from benchmarks.micro.wire_client import Clocks, Load, Round, Stream, StreamError
from benchmarks.micro.wire_engine import FakeEngine
from millstream.runtime.messages import Add, Ready, Step, decode_from_engine, encode
from tests.fakes import make_request


def clocks(time: float, *, cpu: float, tokens: int, events: int) -> Clocks:
    return Clocks(time=time, server_cpu=cpu, client_cpu=0.0, tokens=tokens, events=events)


def test_time_added_is_from_each_step_to_its_token() -> None:
    sent = [0, 1_000, 2_000, 3_000, 4_000]
    quick = [9_000, 1_100, 2_100, 3_300, 9_000]  # the first and the last step do not count
    slow = [9_000, 1_900, 2_800, 3_400, 9_000]
    with socket.socket() as any_socket:
        streams = [Stream(any_socket, array("q", times)) for times in (quick, slow)]
        first = clocks(1.0, cpu=0.5, tokens=2, events=2)
        last = clocks(3.0, cpu=0.9, tokens=10, events=6)
        found = Round.of(first, last, streams, sent)
    assert [round(seconds * 1e9) for seconds in found.added] == [100, 100, 300, 400, 800, 900]
    assert round(found.worst_stream * 1e9) == 800
    assert [round(seconds * 1e9) for seconds in found.gaps] == [600, 900, 1000, 1200]
    assert (found.streams, found.tokens, found.events, found.seconds) == (2, 8, 4, 2.0)
    assert found.chunks_per_s == 2
    assert found.cpu_us == pytest.approx(0.4 / 4 * 1e6)


def test_the_engine_says_one_token_for_each_request_and_step() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    ours.bind("inproc://wire")
    theirs.connect("inproc://wire")
    engine = FakeEngine(theirs, theirs, token_ids=[7, 9])
    for request in (make_request(1, (1, 2)), make_request(2, (3,), logprobs=2)):
        ours.send(encode(Add(request)))
    engine.announce()
    engine.take_inbox()
    engine.step()
    engine.step(reason="length")
    ready, idle, *steps = (decode_from_engine(ours.recv()) for _ in range(4))
    assert isinstance(ready, Ready)
    assert isinstance(idle, Step)
    for step, reason, token in zip(steps, (None, "length"), (7, 9), strict=True):
        assert isinstance(step, Step)
        assert [event.request_id for event in step.tokens] == [1, 2]
        assert [event.token_ids for event in step.tokens] == [(token,), (token,)]
        assert {event.finish_reason for event in step.tokens} == {reason}
        assert [len(event.logprobs) for event in step.tokens] == [0, 1]
        assert len(step.tokens[1].logprobs[0].top) == 2
    ours.close()
    theirs.close()
    context.term()


@pytest.fixture
def load() -> Iterator[Load]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    control = context.socket(zmq.PAIR)
    yield Load(0, os.getpid(), control)
    control.close()
    context.term()


def test_a_refused_stream_is_no_figure(load: Load) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
        with pytest.raises(StreamError, match="429"):
            load.read(Stream(ours, array("q")))


def test_a_cut_stream_is_no_figure(load: Load) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        stream = Stream(ours, array("q"))
        with theirs:
            theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\ndata: ~~\n\n")
            load.read(stream)
        assert len(stream.times) == 2
        with pytest.raises(StreamError, match="cut"):
            load.read(stream)


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "wire.json"
    flags = ["--streams", "2", "--seconds", "0.2", "--load", "0.2", "--variants", "plain", "tools"]
    wire.main([*flags, "--json", str(target)])
    plain, tools = json.loads(target.read_text())
    assert [(row["variant"], row["streams"]) for row in (plain, tools)] == [
        ("plain", 2),
        ("tools", 2),
    ]
    for row in (plain, tools):
        assert row["chunks_per_s"] > row["paced_chunks_per_s"] > 0
        assert row["tokens_per_chunk"] >= 1
        assert 0 < row["added_p50_ms"] <= row["added_p99_ms"] <= row["added_max_ms"]
        assert row["cpu_us"] >= 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert table[1].split()[:3] == ["this", "plain", "2"]
