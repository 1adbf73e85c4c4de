"""A thousand streams at once from the real server process: each is complete, in order, ends once.

How evenly they come is measured by `benchmarks.micro.wire`; here a machine may be as busy as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

import millstream
from benchmarks.micro.turnover import Flowing, Plan
from benchmarks.micro.wire import run_server
from benchmarks.micro.wire_client import Load, Stream, Variant
from benchmarks.micro.wire_engine import Begin

STREAMS = 1000
TEXT = b"~^|$%&@#`"  # nothing else of a stream has these letters


class Keeper(Load):
    """Keeps what each stream has brought."""

    def __init__(self, load: Load) -> None:
        self.__dict__ |= load.__dict__
        self.kept: dict[int, bytes] = {}
        self.last = b""

    def _new(self, stream: Stream, data: bytes) -> bytes:
        number = stream.socket.fileno()
        self.kept[number] = self.kept.get(number, b"") + data
        return data

    def _count(self, new: bytes) -> int:
        return len(new) - len(new.translate(None, TEXT))


def body_of(answer: bytes) -> str:
    """The body of a response in chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not size or not int(size, 16):  # the end need not have been read
            assert rest in (b"", b"\r\n"), "nothing follows"
            return body.decode()
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    with run_server(Path(millstream.__file__).parents[1], text=TEXT) as load:
        yield load


def test_a_thousand_streams_at_once(load: Load) -> None:
    keeper = Keeper(load)
    found = keeper.play(Begin(STREAMS, None, 2), Variant({}), seconds=0.5)
    assert found.streams == len(keeper.kept) == STREAMS
    lengths = set[int]()
    for answer in keeper.kept.values():
        # Comments come where a busy machine is silent for long.
        *events, done, end = body_of(answer).replace(": ping\n\n", "").split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        said = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
        text = "".join(choice["delta"]["content"] for choice in said)
        assert text.encode() == bytes(islice(cycle(TEXT), len(text)))
        assert [choice["finish_reason"] for choice in said] == [None] * (len(said) - 1) + ["length"]
        lengths.add(len(text))
    (length,) = lengths
    assert length * STREAMS == keeper.num_tokens


def test_answers_that_come_and_go_are_whole(load: Load) -> None:
    plan = Plan(streams=20, interval=0.0005, length=8, words=5, seconds=0.2)
    while True:
        found = Flowing(load, plan).play()
        if found["requests_per_s"]:
            break
    assert found["tokens_per_s"] > 0
    assert 0 < found["ttft_p50_ms"] <= found["ttft_p99_ms"]
