"""Streams that are kept full, read by one process: `python benchmarks/gpu/streams.py`.

What it is to do comes as a line of JSON, a `Job`. It says "full" when each of its streams has had a
token, reads for how many seconds to measure, and prints what it `Measured`, or why it could not.
Whenever an answer ends, another is asked for, over a connection of its own.

Rules: the standard library only, so that the process starts at once. No event is parsed: answers
are words with a space before each, so tokens are counted by the spaces in what events have as
content. Each answer has to have as many as the server itself says.
"""

from __future__ import annotations

import json
import os
import random
import re
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

FULL = "full"
_READ_BYTES = 262_144
_STALL_SECONDS = 60.0
_DONE = b"data: [DONE]\n\n"
_CONTENT = re.compile(rb'"content":"([^"]*)"')
_USAGE = re.compile(rb'"prompt_tokens": ?(\d+), ?"completion_tokens": ?(\d+)')


class StreamError(Exception):
    """The server did not answer as it should; no figure can be trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one process reads. streams: the numbers of its own, of `of` in all. prompt, answer: in
    tokens. first, words, num_words: a prompt is the first word and so many random ones."""

    port: int
    streams: Sequence[int]
    of: int
    prompt: int
    answer: int
    first: str
    words: Sequence[str]
    num_words: int


@dataclass(kw_only=True, slots=True)
class Measured:
    """What one process saw while it measured, in seconds.

    ttft: of answers whose first token came meanwhile, from before connecting. itl: from each
    arrival of tokens to the next of the same answer. cpu: of this process.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    tokens: int = 0
    answers: int = 0
    ttft: list[float] = field(default_factory=list)
    itl: list[float] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class _Stream:
    """One request under way. asked, last: when, by time.perf_counter(). rest: what was read and is
    no whole event yet, or of the head. usage: tokens of prompt and answer, as the server says."""

    number: int
    socket: socket.socket
    asked: float
    max_tokens: int
    last: float | None = None
    tokens: int = 0
    rest: bytes = b""
    is_open: bool = False
    usage: tuple[int, int] | None = None


def first_length(number: int, of: int, answer: int) -> int:
    """Tokens of a stream's first answer: all lengths, so that later ones end one by one."""
    return max(1, (number + 1) * answer // of)


class Player:
    """Keeps the streams of a job full. Mutated by `play()` only."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._selector = selectors.DefaultSelector()
        # Intentional: no other process and no other load on a server draws the same prompts, which
        # its prefix cache would have.
        self._draw = random.Random(f"{job.of} {job.streams[0]}")
        self._without_token = set(job.streams)
        self._found = Measured()
        self._until: float | None = None

    def play(self) -> Measured:
        """Until it has measured for as long as it is told. Raises StreamError."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        for number in self._job.streams:
            self._ask(number, first_length(number, self._job.of, self._job.answer))
        began = cpu = 0.0
        while not self._is_over():
            ready = self._selector.select(timeout=_STALL_SECONDS)
            if not ready:
                raise StreamError(f"nothing arrived for {_STALL_SECONDS:.0f} s")
            for key, _ in ready:
                if key.data is not None:
                    self._read(key.data)
                    continue
                seconds = _asked_seconds()
                self._selector.unregister(sys.stdin)
                self._found = Measured()
                began, cpu = time.perf_counter(), time.process_time()
                self._until = began + seconds
        self._found.seconds = time.perf_counter() - began
        self._found.cpu = time.process_time() - cpu
        return self._found

    def _is_over(self) -> bool:
        """After the time, and not before there is something to tell."""
        if self._until is None or time.perf_counter() < self._until:
            return False
        return bool(self._found.ttft and self._found.itl)

    def _ask(self, number: int, max_tokens: int) -> None:
        job = self._job
        words = [job.first, *self._draw.choices(job.words, k=job.num_words)]
        content = {
            "model": "model",
            "messages": [{"role": "user", "content": " ".join(words)}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body = json.dumps(content).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        asked = time.perf_counter()
        connection = socket.create_connection(("127.0.0.1", job.port), timeout=_STALL_SECONDS)
        connection.sendall(head.encode() + body)
        connection.settimeout(0)
        stream = _Stream(number=number, socket=connection, asked=asked, max_tokens=max_tokens)
        self._selector.register(connection, selectors.EVENT_READ, stream)

    def _read(self, stream: _Stream) -> None:
        data = stream.socket.recv(_READ_BYTES)
        now = time.perf_counter()
        events = _events(stream, data)
        if tokens := sum(text.count(b" ") for text in _CONTENT.findall(events)):
            self._take(stream, tokens, now)
        if usage := _USAGE.search(events):
            stream.usage = int(usage[1]), int(usage[2])
        if events.endswith(_DONE):
            self._end(stream)
        elif not data:
            raise StreamError(f"a stream was cut: {(events + stream.rest)[-300:]!r}")

    def _take(self, stream: _Stream, tokens: int, now: float) -> None:
        self._found.tokens += tokens
        stream.tokens += tokens
        if stream.last is None:
            self._found.ttft.append(now - stream.asked)
            if stream.number in self._without_token:
                self._without_token.remove(stream.number)
                if not self._without_token:
                    print(FULL, flush=True)
        else:
            self._found.itl.append(now - stream.last)
        stream.last = now

    def _end(self, stream: _Stream) -> None:
        self._selector.unregister(stream.socket)
        stream.socket.close()
        seen, wanted = (stream.usage, stream.tokens), (self._job.prompt, stream.max_tokens)
        if seen != (wanted, stream.max_tokens):
            raise StreamError(f"tokens of an answer: {seen}, not {(wanted, stream.max_tokens)}")
        self._found.answers += 1
        self._ask(stream.number, self._job.answer)


def _events(stream: _Stream, data: bytes) -> bytes:
    """The whole events that have come; the rest waits. Raises StreamError for a refusal."""
    stream.rest += data
    if not stream.is_open:
        head, end, rest = stream.rest.partition(b"\r\n\r\n")
        if not end:
            return b""
        if not head.startswith(b"HTTP/1.1 200"):
            raise StreamError(f"a request was refused: {stream.rest[:300]!r}")
        stream.rest, stream.is_open = rest, True
    end_of_last = stream.rest.rfind(b"\n\n") + 2
    if end_of_last < 2:
        return b""
    events, stream.rest = stream.rest[:end_of_last], stream.rest[end_of_last:]
    return events


def _asked_seconds() -> float:
    """Raises SystemExit if whoever asked is gone."""
    line = os.read(sys.stdin.fileno(), 100)
    if not line:
        sys.exit(1)
    return float(line)


def main() -> None:
    """Plays the job of the first line that is read."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered, so that the selector sees what comes next
        part = os.read(sys.stdin.fileno(), 65_536)
        if not part:
            sys.exit(1)
        line += part
    try:
        found = asdict(Player(Job(**json.loads(line))).play())
    except (StreamError, OSError) as error:
        found = {"problem": f"{error}"}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
