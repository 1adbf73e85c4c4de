"""What is measured of a request, and the figures made of many. Pure: no clock, no network.

Definitions (times in seconds inside, milliseconds in summaries):
- TTFT: from before connecting to the first piece of text. Empty pieces (a lone role) don't count.
- ITL: each gap between one piece of text and the next. Pieces that arrive together have a gap of 0.
- TPOT: from the first piece to the last, divided by the tokens after the first.
- latency: from before connecting to the event that finishes the answer.
- tokens: the server's own count (`usage`) if it sends one, else the pieces of text.
- goodput: completed requests per second that met the SLO, both its TTFT and its TPOT.
Cancelled requests count for TTFT, ITL and tokens only; failed ones for nothing but `errors`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import msgspec


class StreamError(Exception):
    """The answer itself says that it failed, or cannot be read."""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        return (self.reasoning_content or self.reasoning or "") + (self.content or "")


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None
    error_type: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Transcript:
    """The events of one streamed answer, read one by one. Only `feed` mutates it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.finish_reason: str | None = None
        self.finished_at: float | None = None
        self.usage: _Usage | None = None
        self.is_done = False

    def feed(self, now: float, payload: bytes) -> None:
        """Take the data of one event. Raises StreamError if it is an error or unreadable."""
        if payload == b"[DONE]":
            self.is_done = True
            return
        try:
            chunk = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StreamError(f"unreadable event {payload[:80]!r}: {error}") from error
        if chunk.error_type or (chunk.error and bytes(chunk.error) != b"null"):
            raise StreamError(f"error event: {payload[:200].decode('utf-8', 'replace')}")
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices or ():
            if piece := choice.delta.text:
                self.pieces.append(piece)
                self.times.append(now)
            if choice.finish_reason is not None:
                self.finish_reason, self.finished_at = choice.finish_reason, now

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def num_tokens(self) -> int:
        reported = self.usage.completion_tokens if self.usage else 0
        return reported or len(self.pieces)


Outcome = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One request. Times are of one clock, in seconds; times: of each piece of text."""

    outcome: Outcome
    started: float
    ended: float
    times: tuple[float, ...] = ()
    tokens: int = 0
    asked: int = 0
    prompt_tokens: int | None = None
    error: str = ""

    @property
    def ttft(self) -> float | None:
        return self.times[0] - self.started if self.times else None

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.times)]

    @property
    def tpot(self) -> float | None:
        if self.tokens < 2 or not self.times:
            return None
        return (self.times[-1] - self.times[0]) / (self.tokens - 1)

    @property
    def latency(self) -> float:
        return self.ended - self.started


@dataclass(frozen=True, slots=True)
class Slo:
    """What a user is happy with, in milliseconds."""

    ttft_ms: float = 1000.0
    tpot_ms: float = 100.0

    def is_met_by(self, record: Record) -> bool:
        tpot = record.tpot or 0.0
        return (
            record.outcome == "completed"
            and record.ttft is not None
            and record.ttft * 1000 <= self.ttft_ms
            and tpot * 1000 <= self.tpot_ms
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p99: float | None
    mean: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        if not seconds:
            return cls(None, None, None)
        values = sorted(value * 1000 for value in seconds)
        mean = sum(values) / len(values)
        return cls(percentile(values, 50), percentile(values, 99), mean)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in ascending order, at least one; linear between neighbours, as numpy does it."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The figures of one workload on one server in one round.

    short: completed answers with fewer tokens than asked for. client_cpu: cores that the client
    itself kept busy, on average.
    """

    requests: int
    completed: int
    cancelled: int
    failed: int
    short: int
    duration_s: float
    output_tokens: int
    tokens_per_s: float
    requests_per_s: float
    goodput_per_s: float
    ttft_ms: Spread
    itl_ms: Spread
    tpot_ms: Spread
    latency_ms: Spread
    client_cpu: float
    errors: dict[str, int] = field(default_factory=dict)


def summarise(
    records: Sequence[Record], *, duration: float, client_cpu_seconds: float, slo: Slo
) -> Summary:
    """The figures of a run. duration: seconds from its first request to the end of its last."""
    done = [record for record in records if record.outcome == "completed"]
    served = [record for record in records if record.outcome != "failed"]
    tokens = sum(record.tokens for record in served)
    return Summary(
        requests=len(records),
        completed=len(done),
        cancelled=len(served) - len(done),
        failed=len(records) - len(served),
        short=sum(record.tokens < record.asked for record in done),
        duration_s=duration,
        output_tokens=tokens,
        tokens_per_s=tokens / duration,
        requests_per_s=len(done) / duration,
        goodput_per_s=sum(map(slo.is_met_by, records)) / duration,
        ttft_ms=Spread.of([r.ttft for r in served if r.ttft is not None]),
        itl_ms=Spread.of([gap for record in served for gap in record.gaps]),
        tpot_ms=Spread.of([r.tpot for r in done if r.tpot is not None]),
        latency_ms=Spread.of([record.latency for record in done]),
        client_cpu=client_cpu_seconds / duration,
        errors=dict(Counter(record.error for record in records if record.error)),
    )
