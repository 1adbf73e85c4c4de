"""What sends spans to a collector, by OpenTelemetry's SDK, an extra (`millstream[otel]`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.errors import StartupError
from millstream.metrics.ended_request import EndedRequest, Trace
from millstream.settings import Settings
from millstream.tracing.spans import attributes_of, parts_of
from millstream.version import __version__

_PATH = "/v1/traces"


class Tracer:
    """Makes the spans of requests that have ended, and sends them from a thread of its own."""

    def __init__(self, *, endpoint: str, service: str, model: str) -> None:
        """endpoint: a collector's, for OTLP over HTTP. Raises StartupError without the SDK."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise StartupError(
                "--otlp-traces-endpoint: traces need OpenTelemetry; pip install 'millstream[otel]'"
            ) from error
        place = endpoint if endpoint.endswith(_PATH) else endpoint.rstrip("/") + _PATH
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=place)))
        self._tracer = self._provider.get_tracer("millstream", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._model = model
        self._api: Any = trace

    def trace(self, request: EndedRequest) -> None:
        """Makes its spans, below the client's if it has told of one."""
        # Between the clock of spans and the one by which times are taken.
        shift = time.time_ns() - time.monotonic_ns()

        def at(seconds: float) -> int:
            return int(seconds * 1e9) + shift

        span = self._tracer.start_span(
            f"{request.method} {request.route}",
            context=self._propagator.extract(request.trace),
            kind=self._api.SpanKind.SERVER,
            attributes=attributes_of(request, model=self._model),
            start_time=at(request.began),
        )
        below = self._api.set_span_in_context(span)
        for part in parts_of(request):
            self._tracer.start_span(
                part.name, context=below, attributes=part.attributes, start_time=at(part.began)
            ).end(at(part.ended))
        if request.error is not None and (request.status is None or request.status >= 500):
            span.set_status(self._api.StatusCode.ERROR)
        span.end(at(request.ended))

    def close(self) -> None:
        """Sends what is left. Waits for the collector, so call it in a thread."""
        self._provider.shutdown()


@contextmanager
def traces(settings: Settings) -> Iterator[Trace | None]:
    """What is to hear of requests that have ended, for as long as the block lasts; None if nobody
    wants traces. Raises StartupError as Tracer does."""
    if settings.otlp_traces_endpoint is None:
        yield None
        return
    tracer = Tracer(
        endpoint=settings.otlp_traces_endpoint,
        service=settings.otlp_service_name,
        model=settings.model_name,
    )
    try:
        yield tracer.trace
    finally:
        tracer.close()
