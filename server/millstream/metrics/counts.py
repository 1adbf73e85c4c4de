"""What HTTP processes have counted: how one tells another, and how it is summed.

Rules:
1. Sums are exact and do not depend on the order of their summands, so no counter falls when the
   counts of a process that ends move from one summand to another.
2. Every attribute of RequestMetrics and HttpMetrics is told and summed. It is a number, a Counter,
   a Histogram, or a defaultdict of Histograms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec

from millstream.metrics.histogram import Histogram
from millstream.metrics.http_metrics import HttpMetrics
from millstream.metrics.process_figures import ProcessFigures
from millstream.metrics.request_metrics import RequestMetrics

WORKER_ENDED = "http_worker_ended"
"""The code of requests that were open in an HTTP process when it ended."""

_Metrics: TypeAlias = RequestMetrics | HttpMetrics
_Label: TypeAlias = str | tuple[str, str, int | None]


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one HTTP process has counted, or the sum over several.

    requests, http: counters, which never go back. What follows is of this moment. num_tasks: of
    event loops. num_processes: HTTP processes whose counts these are, without those that have
    ended. process: what they use; None where the system does not tell.
    """

    requests: RequestMetrics = field(default_factory=RequestMetrics)
    http: HttpMetrics = field(default_factory=HttpMetrics)
    num_tasks: int = 0
    num_processes: int = 0
    process: ProcessFigures | None = None

    def add(self, other: Counts) -> None:
        """Adds what others have counted."""
        _add(self.requests, other.requests)
        _add(self.http, other.http)
        self.num_tasks += other.num_tasks
        self.num_processes += other.num_processes
        if other.process is not None:
            self.process = other.process.plus(self.process)

    def when_ended(self) -> Counts:
        """What stays when the process has ended: its counters. The requests that it had have
        failed."""
        counts = summed([self])
        counts.requests.failed[WORKER_ENDED] += counts.requests.num_open
        counts.num_tasks = counts.num_processes = 0
        counts.process = None if self.process is None else self.process.when_ended()
        return counts

    def encode(self) -> bytes:
        """The counts as a message, which `decode()` reads."""
        message = _Message(
            requests=_attributes(self.requests),
            http=_attributes(self.http),
            num_tasks=self.num_tasks,
            num_processes=self.num_processes,
            process=self.process,
        )
        return _encode(message)

    @classmethod
    def decode(cls, data: bytes) -> Counts:
        """Counts like those that were encoded. Raises msgspec.ValidationError for another
        message."""
        message = _decode(data)
        counts = cls(
            num_tasks=message.num_tasks,
            num_processes=message.num_processes,
            process=message.process,
        )
        _set(counts.requests, message.requests)
        _set(counts.http, message.http)
        return counts


class CountSource(Protocol):
    """Knows what all HTTP processes of a server have counted."""

    async def all(self) -> Counts:
        """The counts of all, which are to be read before anything is awaited."""
        ...


def summed(parts: Iterable[Counts]) -> Counts:
    """The sum, in an object of its own."""
    counts = Counts()
    for each in parts:
        counts.add(each)
    return counts


class _Values(msgspec.Struct, frozen=True, array_like=True):
    """The counts of a histogram, its total, and the remainder of that."""

    counts: list[int]
    total: float
    remainder: list[float]


class _Attributes(msgspec.Struct, array_like=True):
    """The attributes of RequestMetrics, or of HttpMetrics, by name."""

    numbers: dict[str, int] = {}
    counters: dict[str, list[tuple[_Label, int]]] = {}
    histograms: dict[str, _Values] = {}
    labelled: dict[str, dict[str, _Values]] = {}


class _Message(msgspec.Struct, frozen=True, array_like=True):
    requests: _Attributes
    http: _Attributes
    num_tasks: int
    num_processes: int
    process: ProcessFigures | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


def _add(metrics: _Metrics, other: _Metrics) -> None:
    for name, value in vars(other).items():
        own = getattr(metrics, name)
        if isinstance(value, Histogram):
            own.add(value)
        elif isinstance(value, Counter):
            own.update(value)
        elif isinstance(value, dict):
            for label, histogram in value.items():
                own[label].add(histogram)
        else:
            setattr(metrics, name, own + value)


def _attributes(metrics: _Metrics) -> _Attributes:
    found = _Attributes()
    for name, value in vars(metrics).items():
        if isinstance(value, Histogram):
            found.histograms[name] = _values(value)
        elif isinstance(value, Counter):
            found.counters[name] = list(value.items())
        elif isinstance(value, dict):
            found.labelled[name] = {label: _values(each) for label, each in value.items()}
        else:
            found.numbers[name] = value
    return found


def _values(histogram: Histogram) -> _Values:
    return _Values(histogram.counts, histogram.total, histogram.remainder)


def _set(metrics: _Metrics, found: _Attributes) -> None:
    """Gives metrics that have counted nothing the attributes of others."""
    for name, number in found.numbers.items():
        setattr(metrics, name, number)
    for name, pairs in found.counters.items():
        getattr(metrics, name).update(dict(pairs))
    for name, values in found.histograms.items():
        _set_values(getattr(metrics, name), values)
    for name, by_label in found.labelled.items():
        for label, values in by_label.items():
            _set_values(getattr(metrics, name)[label], values)


def _set_values(histogram: Histogram, values: _Values) -> None:
    if len(values.counts) != len(histogram.counts):
        raise msgspec.ValidationError("a histogram with other bounds")
    histogram.counts = values.counts
    histogram.total, histogram.remainder = values.total, values.remainder
