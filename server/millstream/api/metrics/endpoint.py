"""GET /metrics, in the text format of Prometheus (version 0.0.4), which every scraper reads.

Intentional: not in OpenMetrics, for which Prometheus asks first: the encoder of prometheus_client
0.26 writes `vllm_` for `vllm:` there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from prometheus_client import ProcessCollector, generate_latest
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
from millstream.api.metrics.request_families import http_families, request_families
from millstream.api.metrics.tgi_names import tgi_families
from millstream.api.metrics.vllm_names import vllm_families
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
    process = ProcessCollector(registry=None)

    async def answer(request: Request) -> Response:
        # Collected at one moment of the event loop; written beside it, which takes longer.
        families = [*all_families(context), *process.collect()]
        content = await run_in_threadpool(generate_latest, _Collected(families))
        return Response(content, headers={"content-type": _CONTENT_TYPE})

    return replace(METRICS, is_open=context.settings.open_metrics).route(answer)


def all_families(context: ServerContext) -> Iterator[Metric]:
    """Everything but the process's own figures. To be called on the event loop."""
    engine, http = context.engine, context.http_metrics
    labels = {"version": __version__, "model": context.settings.model_name}
    if engine.state in (State.READY, State.STUCK):
        info = engine.info
        labels |= {"architecture": info.architecture, "device": info.device, "dtype": info.dtype}
    yield gauge("millstream_info", "What is served, and by which version", 1.0, labels)
    yield from engine_families(engine)
    yield from request_families(engine.streams.metrics)
    yield from http_families(http)
    num_tasks = len(asyncio.all_tasks())
    yield gauge("millstream_asyncio_tasks", "Tasks of the server's event loop", num_tasks)
    if context.keys is not None:
        yield from key_families(context.keys.labelled)
    yield from vllm_families(engine, model=context.settings.model_name)
    yield from tgi_families(engine, http)
