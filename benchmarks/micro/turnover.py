"""The HTTP process while requests come and go: tokens per second, TTFT and ITL of a fast engine.

Run: python -m benchmarks.micro.turnover [--streams 64 256] [--interval 0.004] [--length 64]
     python -m benchmarks.micro.turnover --http-workers 1 2

As in `wire.py`, only the engine is replaced. This one steps every `--interval` seconds whatever the
server does, as a GPU would, and gives each running request a token, of `--length` in all; whenever
an answer ends, another is asked for, over a connection of its own. "of engine" is what part of the
tokens the engine could have made reaches the client: places that are empty while the server ends
one answer and begins the next are lost.

--http-workers plays every round with servers of so many HTTP processes, in turns. "cores" is what
all of them take, "hub" what of it the process takes that is between them and the engine.

--against FOLDER plays every round with the sources of another checkout too, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import millstream
from benchmarks.measures import percentile
from benchmarks.micro.wire import run_servers
from benchmarks.micro.wire_client import TOKEN_TEXT, Load, StreamError
from benchmarks.micro.wire_engine import Finish, Flow, decode_sent, encode

_END = b"[DONE]"
_READ_BYTES = 65_536
_STALL_SECONDS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """interval: seconds from step to step. words: of each prompt."""

    streams: int
    interval: float
    length: int
    words: int
    seconds: float


@dataclass(slots=True)
class Answer:
    """One request under way. asked, last: when, by time.perf_counter()."""

    socket: socket.socket
    asked: float
    last: float = 0.0
    tokens: int = 0


class Flowing:
    """Keeps so many answers under way on one server for a while."""

    def __init__(self, load: Load, plan: Plan) -> None:
        self._address = load.address
        self._processes = load.processes
        self._control = load.control
        self._plan = plan
        self._selector = selectors.EpollSelector()
        self._num_asked = 0
        self.tokens = self.requests = 0
        self.first: list[float] = []
        self.gaps: list[float] = []

    def play(self) -> dict[str, float]:
        """The figures of one round. Raises StreamError."""
        plan = self._plan
        self._control.send(encode(Flow(plan.interval, plan.length)))
        for _ in range(plan.streams):
            self._ask()
        self._read_until(time.perf_counter() + plan.seconds / 4)
        self.tokens = self.requests = 0
        self.first, self.gaps = [], []
        began, before = time.perf_counter(), self._cpu()
        self._read_until(began + plan.seconds)
        seconds, after = time.perf_counter() - began, self._cpu()
        each = [now - then for now, then in zip(after, before, strict=True)]
        cpu, hub = sum(each), each[0] if len(each) > 1 else 0.0
        # What is open is dropped: leaving is cancelling.
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()
        self._control.send(encode(Finish()))
        decode_sent(self._control.recv())
        self.first.sort()
        self.gaps.sort()
        return {
            "tokens_per_s": self.tokens / seconds,
            "of_engine": self.tokens / seconds * plan.interval / plan.streams,
            "requests_per_s": self.requests / seconds,
            "server_cores": cpu / seconds,
            "hub_cores": hub / seconds,
            "token_us": cpu / max(self.tokens, 1) * 1e6,
            "ttft_p50_ms": percentile(self.first or [0.0], 50) * 1000,
            "ttft_p99_ms": percentile(self.first or [0.0], 99) * 1000,
            "itl_p50_ms": percentile(self.gaps or [0.0], 50) * 1000,
            "itl_p99_ms": percentile(self.gaps or [0.0], 99) * 1000,
        }

    def _cpu(self) -> list[float]:
        times = [process.cpu_times() for process in self._processes]
        return [each.user + each.system for each in times]

    def _ask(self) -> None:
        self._num_asked += 1
        prompt = f"{self._num_asked} " + "word " * self._plan.words
        body = json.dumps(
            {
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": self._plan.length,
                "stream": True,
            }
        ).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(self._address)
        connection.sendall(head.encode() + body)
        connection.settimeout(0)
        answer = Answer(connection, time.perf_counter())
        self._selector.register(connection, selectors.EVENT_READ, answer)

    def _read_until(self, end: float) -> None:
        while time.perf_counter() < end:
            ready = self._selector.select(timeout=_STALL_SECONDS)
            if not ready:
                raise StreamError(f"nothing arrived for {_STALL_SECONDS} s")
            for key, _ in ready:
                self._read(key.data)

    def _read(self, answer: Answer) -> None:
        data = answer.socket.recv(_READ_BYTES)
        now = time.perf_counter()
        if tokens := data.count(TOKEN_TEXT):
            self.tokens += tokens
            answer.tokens += tokens
            if answer.last:
                self.gaps.append(now - answer.last)
            else:
                self.first.append(now - answer.asked)
            answer.last = now
        if _END in data:
            if answer.tokens != self._plan.length:
                raise StreamError(f"an answer has {answer.tokens} tokens")
            self.requests += 1
            self._selector.unregister(answer.socket)
            answer.socket.close()
            self._ask()
        elif not data or b" 429 " in data[:20] or b" 503 " in data[:20]:
            raise StreamError(f"a stream was refused or cut: {data[:300]!r}")


_COLUMNS = {
    "tok/s": ("tokens_per_s", 8, 0),
    "of engine": ("of_engine", 9, 2),
    "req/s": ("requests_per_s", 7, 0),
    "cores": ("server_cores", 6, 2),
    "hub": ("hub_cores", 5, 2),
    "CPU us/tok": ("token_us", 10, 1),
    "TTFT p50 ms": ("ttft_p50_ms", 11, 1),
    "p99": ("ttft_p99_ms", 7, 1),
    "ITL p50 ms": ("itl_p50_ms", 10, 2),
    "p99 ": ("itl_p99_ms", 7, 1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.turnover")
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--interval", type=float, default=0.004, help="seconds from step to step")
    parser.add_argument("--length", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--words", type=int, default=100, help="of a prompt")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--http-workers", type=int, nargs="+", default=[1])
    parser.add_argument("--against", type=Path, help="a folder that holds another `millstream`")
    options = parser.parse_args(arguments)
    sources = {"this": Path(millstream.__file__).parents[1]}
    if options.against:
        sources = {"other": options.against.resolve()} | sources
    with contextlib.ExitStack() as stack:
        loads = stack.enter_context(run_servers(sources, options.http_workers))
        heads = "  ".join(f"{head:>{size}}" for head, (_, size, _) in _COLUMNS.items())
        print(f"{'server':8} {'streams':>7}  {heads}")
        for streams in options.streams:
            plan = Plan(
                streams=streams,
                interval=options.interval,
                length=options.length,
                words=options.words,
                seconds=options.seconds,
            )
            found: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
            for _ in range(options.rounds):
                for name, load in loads.items():
                    found[name].append(Flowing(load, plan).play())
            for name, rounds in found.items():
                cells = (
                    f"{statistics.median(one[key] for one in rounds):{size}.{digits}f}"
                    for key, size, digits in _COLUMNS.values()
                )
                print(f"{name:8} {streams:7}  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
