"""Many streams read by one thread, as cheaply as Python can, with a time stamp for every read.

Nothing is parsed: all tokens have the same text, a character that nothing else in a chunk has, so
tokens and events are counted by searching bytes. That keeps the client's share of the cores small.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psutil
import zmq

from benchmarks.measures import percentile
from benchmarks.micro.wire_engine import Arrived, Begin, Finish, decode_sent, encode

TOKEN_TEXT = b"~"
_BODIES: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1_000_000,
    },
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1_000_000},
}
_READ_BYTES = 262_144
_STALL_SECONDS = 30
_NAP_SECONDS = 0.0005


class StreamError(Exception):
    """The server did not answer as it should; no figure can be trusted."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What is asked for. mark: what an event has once for each of its tokens. end: what the last
    event has. repeat: what begins the events that repeat the whole text."""

    fields: Mapping[str, Any]
    mark: bytes = TOKEN_TEXT
    end: bytes = b"[DONE]"
    repeat: bytes | None = None
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """One connection. times: when each of its tokens was read, by time.monotonic_ns()."""

    socket: socket.socket
    times: array[int]
    is_open: bool = False
    is_repeating: bool = False
    is_done: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Clocks:
    """All counters at one moment."""

    time: float
    server_cpu: float
    client_cpu: float
    tokens: int
    events: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round gave.

    tokens, events: received while it was measured. server_cpu: seconds of the HTTP process, all
    threads. added: seconds from the engine's socket to the client's, of each token, ascending.
    worst_stream: the largest median of `added` of a single stream. gaps: seconds from each token of
    a stream to its next, ascending. opening_cpu: seconds of the HTTP process from before the first
    stream was asked for until all had their first token.
    """

    streams: int
    seconds: float
    tokens: int
    events: int
    server_cpu: float
    client_cpu: float
    added: list[float]
    worst_stream: float
    gaps: list[float]
    opening_cpu: float = 0.0

    @classmethod
    def of(
        cls,
        first: Clocks,
        last: Clocks,
        streams: list[Stream],
        sent: list[int],
        *,
        opening_cpu: float = 0.0,
    ) -> Round:
        # The first step opened the streams and the last one ended them.
        per_stream = [
            sorted((read - then) / 1e9 for read, then in pairs)
            for pairs in (list(zip(one.times, sent, strict=True))[1:-1] for one in streams)
        ]
        return cls(
            streams=len(streams),
            seconds=last.time - first.time,
            tokens=last.tokens - first.tokens,
            events=last.events - first.events,
            server_cpu=last.server_cpu - first.server_cpu,
            client_cpu=last.client_cpu - first.client_cpu,
            added=sorted(value for values in per_stream for value in values),
            worst_stream=max(percentile(values, 50) for values in per_stream),
            gaps=sorted(
                (read - before) / 1e9
                for one in streams
                for before, read in pairwise(one.times[1:-1])
            ),
            opening_cpu=opening_cpu,
        )

    @property
    def chunks_per_s(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the HTTP process for one chunk."""
        return self.server_cpu / self.events * 1e6

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def token_us(self) -> float:
        """Microseconds of the HTTP process for one token."""
        return self.server_cpu / self.tokens * 1e6

    @property
    def request_ms(self) -> float:
        """Milliseconds of the HTTP process for the beginning of one stream."""
        return self.opening_cpu / self.streams * 1e3


class Load:
    """Plays rounds against one server whose engine listens on `control`.

    processes: those of HTTP; of several the first one is between the others and the engine.
    """

    def __init__(self, port: int, pid: int, control: zmq.Socket[bytes]) -> None:
        self.address = ("127.0.0.1", port)
        self.control = control
        hub = psutil.Process(pid)
        workers = [child for child in hub.children() if "http-worker" in child.cmdline()]
        self.processes = [hub, *workers]
        self._variant = Variant({})
        self._tokens = 0
        self._events = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of the last round, its beginning and end included."""
        return self._tokens

    def play(self, begin: Begin, variant: Variant, *, seconds: float) -> Round:
        """One round: opens the streams, reads them to their ends. Raises StreamError."""
        self._tokens = self._events = 0
        self._variant = variant
        self.control.send(encode(begin))
        before = self._clocks()
        streams = [self._open(variant) for _ in range(begin.streams)]
        selector = selectors.EpollSelector()
        try:
            for stream in streams:
                selector.register(stream.socket, selectors.EVENT_READ, stream)
            # A reader that sleeps in between is not woken by every write, as one behind a network
            # card is not; where time is measured, or one stream waits for the next step, it is.
            nap = _NAP_SECONDS if begin.interval is None and begin.streams > 1 else 0.0
            return self._measure(selector, streams, before, seconds=seconds, nap=nap)
        finally:
            selector.close()
            for stream in streams:
                stream.socket.close()

    def _open(self, variant: Variant) -> Stream:
        payload = json.dumps({"stream": True, **_BODIES[variant.path], **variant.fields}).encode()
        headers = {"Host": "localhost", "Content-Type": "application/json", **variant.headers}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = (
            f"POST {variant.path} HTTP/1.1\r\n{''.join(lines)}"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        connection = socket.create_connection(self.address)
        connection.sendall(head.encode() + payload)
        connection.settimeout(0)
        return Stream(connection, array("q"))

    def _measure(
        self,
        selector: selectors.EpollSelector,
        streams: list[Stream],
        before: Clocks,
        *,
        seconds: float,
        nap: float,
    ) -> Round:
        """Reads all streams to their ends. Measures from the arrival of the first step to that of
        a later one, after so many seconds; then tells the engine to finish."""
        steps, num_open = 0, len(streams)
        first: Clocks | None = None
        last: Clocks | None = None
        while num_open:
            ready = selector.select(timeout=_STALL_SECONDS)
            if not ready:
                raise StreamError(f"nothing arrived for {_STALL_SECONDS} s, {num_open} open")
            for key, _ in ready:
                stream: Stream = key.data
                self.read(stream)
                if stream.is_done:
                    selector.unregister(stream.socket)
                    num_open -= 1
            if nap:
                time.sleep(nap)
            if last is None and self._tokens // len(streams) > steps:
                steps = self._tokens // len(streams)
                first = first or self._clocks()
                if time.perf_counter() - first.time < seconds:
                    self.control.send(encode(Arrived(steps)))
                else:
                    last = self._clocks()
                    self.control.send(encode(Finish()))
        if first is None or last is None:
            raise StreamError("the streams ended before they were measured")
        return Round.of(
            first,
            last,
            streams,
            decode_sent(self.control.recv()).times,
            opening_cpu=first.server_cpu - before.server_cpu,
        )

    def read(self, stream: Stream) -> None:
        """Takes what has arrived. Raises StreamError if that is not the answer asked for."""
        data = stream.socket.recv(_READ_BYTES)
        now = time.monotonic_ns()
        new = self._new(stream, data)
        tokens = self._count(new)
        self._tokens += tokens
        # What carries no token (the role, the end) is no chunk of the steady state.
        self._events += min(tokens, new.count(b"data: "))
        for _ in range(tokens):
            stream.times.append(now)
        if self._variant.end in data:
            stream.is_done = True
        elif not data or not (stream.is_open or data.startswith(b"HTTP/1.1 200")):
            raise StreamError(f"a stream was refused or cut: {data[:300]!r}")
        stream.is_open = True

    def _count(self, new: bytes) -> int:
        """The tokens that have come."""
        return new.count(self._variant.mark)

    def _new(self, stream: Stream, data: bytes) -> bytes:
        """What there is before the whole text is repeated."""
        if stream.is_repeating:
            return b""
        repeat = self._variant.repeat
        place = data.find(repeat) if repeat else -1
        stream.is_repeating = place >= 0
        return data[:place] if stream.is_repeating else data

    def _clocks(self) -> Clocks:
        times = [process.cpu_times() for process in self.processes]
        return Clocks(
            time=time.perf_counter(),
            server_cpu=sum(each.user + each.system for each in times),
            client_cpu=time.process_time(),
            tokens=self._tokens,
            events=self._events,
        )
