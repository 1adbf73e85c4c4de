"""/metrics shows what a source says that all HTTP processes have counted."""

from __future__ import annotations

from dataclasses import replace

import httpx
from prometheus_client import ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from millstream.api.context import ServerContext
from millstream.api.metrics.own_counts import OwnCounts
from millstream.api.metrics.process_families import process_families
from millstream.metrics.counts import Counts
from millstream.metrics.http_metrics import HttpMetrics
from millstream.metrics.process_figures import ProcessFigures
from millstream.metrics.request_metrics import RequestMetrics
from tests.api.described_transport import CheckedTransport
from tests.api.serving import context
from tests.text.conftest import byte_tokenizer

__all__ = ["byte_tokenizer", "context"]


async def samples(context: ServerContext) -> dict[tuple[str, frozenset[str]], float]:
    """The values of /metrics by name and the values of labels."""
    transport = CheckedTransport(context)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


class Others:
    """The counts of three HTTP processes."""

    async def all(self) -> Counts:
        counts = Counts(num_tasks=70, num_processes=3)
        counts.requests.num_started = 50
        counts.requests.finished["stop"] = 40
        counts.requests.duration.observe(2.5)
        counts.http.on_response("GET", "/health", status=200, seconds=0.25)
        counts.http.on_refused("overloaded", is_for_answer=True)
        counts.process = ProcessFigures(cpu_nanoseconds=1_250_000_000, start_time=1000.5)
        return counts


async def test_what_all_processes_counted_is_shown(context: ServerContext) -> None:
    context.http_metrics.on_response("GET", "/metrics", status=200, seconds=1.0)
    values = await samples(replace(context, counts=Others()))
    none: frozenset[str] = frozenset()
    for name, labels, value in (
        ("millstream_http_workers", none, 3),
        ("millstream_asyncio_tasks", none, 70),
        ("millstream_requests_started_total", none, 50),
        ("millstream_requests_finished_total", {"stop"}, 40),
        ("millstream_request_duration_seconds_sum", none, 2.5),
        ("millstream_http_requests_total", {"GET", "/health", "200"}, 1),
        ("millstream_requests_refused_total", {"overloaded"}, 1),
        ("vllm:e2e_request_latency_seconds_sum", {"fake", "0"}, 2.5),
        ("vllm:request_success_total", {"fake", "0", "stop"}, 40),
        ("tgi_request_count", none, 51),
        ("tgi_request_success", none, 40),
        ("tgi_request_duration_sum", none, 2.5),
        ("process_cpu_seconds_total", none, 1.25),
        ("process_start_time_seconds", none, 1000.5),
    ):
        assert values[name, frozenset(labels)] == value, name
    assert ("millstream_http_requests_total", frozenset({"GET", "/metrics", "200"})) not in values


async def test_a_server_with_one_process_shows_its_own_counts(context: ServerContext) -> None:
    context.http_metrics.on_response("GET", "/health", status=200, seconds=0.25)
    context.engine.streams.metrics.num_started += 5
    context.engine.streams.metrics.finished["stop"] += 5
    values = await samples(context)
    none: frozenset[str] = frozenset()
    assert values["millstream_http_workers", none] == 1
    assert values["millstream_requests_started_total", none] == 5
    assert values["millstream_http_requests_total", frozenset({"GET", "/health", "200"})] == 1
    assert values["millstream_asyncio_tasks", none] >= 1
    assert values["process_resident_memory_bytes", none] > 1e6


async def test_a_process_is_described_as_by_the_client_of_prometheus() -> None:
    """The same names, types and words in the same order; the values are those of a moment ago."""
    expected = list(ProcessCollector(registry=None).collect())
    found = list(process_families(OwnCounts(RequestMetrics(), HttpMetrics()).now().process))
    assert [(each.name, each.type, each.documentation) for each in found] == [
        (each.name, each.type, each.documentation) for each in expected
    ]
    by_name = {
        each.name: [each.samples[0].value, one.samples[0].value]
        for each, one in zip(found, expected, strict=True)
    }
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert by_name[name][0] == by_name[name][1]
    cpu = by_name["process_cpu_seconds"]
    assert cpu[1] <= cpu[0] < cpu[1] + 60
    assert by_name["process_resident_memory_bytes"][0] > 1e6


def test_nothing_is_shown_of_processes_where_the_system_tells_nothing() -> None:
    assert not list(process_families(None))
