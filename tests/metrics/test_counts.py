"""What one HTTP process has counted reaches another one whole, and is summed without an error."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from millstream.metrics.counts import WORKER_ENDED, Counts, summed
from millstream.metrics.histogram import TOKEN_SECONDS, Histogram
from millstream.metrics.http_metrics import HttpMetrics
from millstream.metrics.process_figures import ProcessFigures
from millstream.metrics.request_metrics import ASKED, READER_LEFT, RequestLife, RequestMetrics


def state(value: Any) -> Any:
    """All that an object counts, in values that can be compared."""
    if isinstance(value, Histogram):
        return value.bounds, value.counts, value.total, value.remainder
    if isinstance(value, Counts):
        return state(value.requests), state(value.http), value.num_tasks, value.num_processes
    if isinstance(value, dict):
        return {key: state(each) for key, each in value.items()}
    if isinstance(value, RequestMetrics | HttpMetrics):
        return state(vars(value))
    return value


def fill(metrics: RequestMetrics | HttpMetrics, source: random.Random) -> None:
    """Counts something in every attribute, whatever attributes there are."""
    for name, value in vars(metrics).items():
        if isinstance(value, Histogram):
            value.observe(source.uniform(0, 10))
        elif isinstance(value, Counter):
            value[name] += source.randrange(1, 100)
        elif isinstance(value, dict):
            value[name].observe(source.uniform(0, 10))
        else:
            setattr(metrics, name, value + source.randrange(1, 100))


def random_counts(seed: int) -> Counts:
    source = random.Random(seed)
    counts = Counts(num_tasks=source.randrange(1, 100), num_processes=1)
    counts.process = ProcessFigures(
        cpu_nanoseconds=source.randrange(10**12),
        start_time=source.uniform(1e9, 2e9),
        resident_bytes=source.randrange(10**10),
        virtual_bytes=source.randrange(10**12),
        num_descriptors=source.randrange(1000),
        max_descriptors=1024,
    )
    for _ in range(5):
        fill(counts.requests, source)
        fill(counts.http, source)
    return counts


def attributes(*parts: Counts) -> Iterator[tuple[str, list[Any]]]:
    """The attributes of all metrics by name, each with its values in the parts."""
    for metrics in ([each.requests for each in parts], [each.http for each in parts]):
        for name in vars(metrics[0]):
            yield name, [getattr(each, name) for each in metrics]


def test_counts_are_read_as_they_were_written() -> None:
    counts = random_counts(1)
    counts.http.on_response("GET", "/health", status=200, seconds=0.1)
    counts.http.on_response("POST", "/v1/chat/completions", status=None, seconds=7.3)
    counts.http.on_response("BREW", "none", status=405, seconds=0.001)
    counts.http.on_refused("overloaded", is_for_answer=True)
    counts.requests.failed["engine_dead"] += 2
    read = Counts.decode(counts.encode())
    assert state(read) == state(counts)
    assert read.process == counts.process
    assert read.http.responses["POST", "/v1/chat/completions", None] == 1
    assert read.encode() == counts.encode()


def test_counts_of_nothing_are_read_as_they_were_written() -> None:
    assert state(Counts.decode(Counts().encode())) == state(Counts())


def test_sums_are_read_as_they_were_written() -> None:
    """Their totals have remainders."""
    counts = summed(random_counts(seed) for seed in range(20))
    assert any(value.remainder for _, (value,) in attributes(counts) if hasattr(value, "remainder"))
    assert state(Counts.decode(counts.encode())) == state(counts)


def test_what_was_read_goes_on_counting() -> None:
    read = Counts.decode(random_counts(1).encode())
    before = read.http.responses.total()
    read.http.on_response("GET", "/new", status=200, seconds=0.5)
    read.requests.on_sent(RequestLife(), num_prompt=1, max_tokens=1, is_leader=True)
    assert read.http.responses.total() == before + 1
    assert read.http.seconds["/new"].total == 0.5


def test_every_attribute_is_summed() -> None:
    first, second = random_counts(1), random_counts(2)
    second.http.seconds["/only/here"].observe(1.0)
    for name, (one, other, both) in attributes(first, second, summed([first, second])):
        if isinstance(both, Histogram):
            assert both.total == one.total + other.total, name
            assert sum(both.counts) == 10, name
        elif isinstance(both, Counter):
            assert both == one + other or both.total() == one.total() + other.total(), name
            assert both.keys() == one.keys() | other.keys(), name
        elif isinstance(both, dict):
            assert both.keys() == one.keys() | other.keys(), name
            assert all(state(both[label].total) > 0 for label in both), name
        else:
            assert both == one + other > other > 0, name


def test_a_sum_is_an_object_of_its_own() -> None:
    counts = random_counts(1)
    before = counts.encode()
    sum_of_one = summed([counts])
    assert state(sum_of_one) == state(counts)
    sum_of_one.add(random_counts(2))
    assert counts.encode() == before


def test_the_order_of_summands_does_not_matter() -> None:
    parts = [random_counts(seed) for seed in range(8)]
    expected = state(summed(parts))
    for seed in range(20):
        random.Random(seed).shuffle(parts)
        some = seed % len(parts)
        assert state(summed([summed(parts[:some]), summed(parts[some:])])) == expected


def test_what_processes_use_is_summed() -> None:
    first = ProcessFigures(
        cpu_nanoseconds=3,
        start_time=1000.5,
        resident_bytes=10,
        virtual_bytes=20,
        num_descriptors=30,
        max_descriptors=1024,
    )
    second = ProcessFigures(
        cpu_nanoseconds=4,
        start_time=999.5,
        resident_bytes=100,
        virtual_bytes=200,
        num_descriptors=300,
        max_descriptors=1024,
    )
    both = ProcessFigures(
        cpu_nanoseconds=7,
        start_time=999.5,
        resident_bytes=110,
        virtual_bytes=220,
        num_descriptors=330,
        max_descriptors=2048,
    )
    assert first.plus(second) == both
    assert summed([Counts(process=first), Counts(), Counts(process=second)]).process == both
    assert summed([Counts(), Counts()]).process is None


def test_of_an_ended_process_the_counters_stay() -> None:
    counts = random_counts(1)
    counts.requests = RequestMetrics()
    fill(counts.requests, random.Random(1))
    counts.requests.num_started = counts.requests.finished.total() + 1000
    counts.requests.cancelled = Counter({READER_LEFT: 0, ASKED: 200})
    counts.requests.failed = Counter(engine_dead=300)
    ended = counts.when_ended()
    assert counts.process is not None
    assert (ended.num_tasks, ended.num_processes) == (0, 0)
    assert ended.process == ProcessFigures(
        cpu_nanoseconds=counts.process.cpu_nanoseconds, start_time=counts.process.start_time
    )
    assert ended.requests.failed == {"engine_dead": 300, WORKER_ENDED: 500}
    assert ended.requests.num_open == 0
    assert counts.requests.num_open == 500, "the process's own counts were changed"
    ended.requests.failed[WORKER_ENDED] = 0
    assert state(ended.http) == state(counts.http)
    assert state(ended.requests) == {**state(counts.requests), "failed": ended.requests.failed}


def test_counts_of_others_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        Counts.decode(msgspec.msgpack.encode([1, 2, 3]))
    counts = Counts()
    counts.requests.queue = Histogram(TOKEN_SECONDS[1:])
    with pytest.raises(msgspec.ValidationError, match="other bounds"):
        Counts.decode(counts.encode())
