"""GET /metrics, in the text format of Prometheus (version 0.0.4), which every scraper reads.

Intentional: not in OpenMetrics, for which Prometheus asks first: the encoder of prometheus_client
0.26 writes `vllm_` for `vllm:` there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from millstream.api.context import ServerContext
from millstream.api.described.route import TEXT, DescribedRoute, Operation
from millstream.api.metrics.engine_families import engine_families
from millstream.api.metrics.families import gauge
from millstream.api.metrics.key_families import key_families
from millstream.api.metrics.own_counts import OwnCounts
from millstream.api.metrics.process_families import process_families
from millstream.api.metrics.request_families import http_families, request_families
from millstream.api.metrics.tgi_names import tgi_families
from millstream.api.metrics.vllm_names import vllm_families
from millstream.metrics.counts import Counts
from millstream.runtime.state import State
from millstream.version import __version__

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METRICS = Operation(
    path="/metrics",
    method="GET",
    summary="What is counted, for Prometheus",
    answers={200: {TEXT: None}},
    is_probe=True,
)


class _Collected(Collector):
    """What was collected, as an encoder wants to have it."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def metrics_route(context: ServerContext) -> DescribedRoute:
    """The route; with --open-metrics it needs no key."""
    source = context.counts or OwnCounts(context.engine.streams.metrics, context.http_metrics)

    async def answer(request: Request) -> Response:
        counts = await source.all()
        # Collected at one moment of the event loop; written beside it, which takes longer.
        families = list(all_families(context, counts))
        content = await run_in_threadpool(generate_latest, _Collected(families))
        return Response(content, headers={"content-type": _CONTENT_TYPE})

    return replace(METRICS, is_open=context.settings.open_metrics).route(answer)


def all_families(context: ServerContext, counts: Counts) -> Iterator[Metric]:
    """Everything. To be called on the event loop. counts: those of all HTTP processes."""
    engine = context.engine
    labels = {"version": __version__, "model": context.settings.model_name}
    if engine.state in (State.READY, State.STUCK):
        info = engine.info
        labels |= {"architecture": info.architecture, "device": info.device, "dtype": info.dtype}
    yield gauge("millstream_info", "What is served, and by which version", 1.0, labels)
    yield from engine_families(engine)
    yield from request_families(counts.requests)
    yield from http_families(counts.http)
    yield gauge(
        "millstream_http_workers", "HTTP processes that take requests", counts.num_processes
    )
    yield gauge("millstream_asyncio_tasks", "Tasks of the server's event loop", counts.num_tasks)
    if context.keys is not None:
        yield from key_families(context.keys.labelled)
    yield from vllm_families(engine, counts.requests, model=context.settings.model_name)
    yield from tgi_families(engine.statistics, counts)
    yield from process_families(counts.process)
