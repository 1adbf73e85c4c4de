"""What becomes of requests, and what they were answered, by the names of this server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from millstream.api.metrics.families import counter, counters, histogram, histograms
from millstream.core.request import FailureCode
from millstream.errors import (
    EngineUnavailable,
    GenerationTimeout,
    Overloaded,
    RateLimited,
    ShuttingDown,
)
from millstream.metrics.http_metrics import HttpMetrics
from millstream.metrics.request_metrics import RequestMetrics

# Shown from the start, so that the first of them is an increase.
_USUAL_FAILURES = (*(code.value for code in FailureCode), GenerationTimeout.code, "engine_dead")
_USUAL_REFUSALS = (Overloaded.code, RateLimited.code, EngineUnavailable.code, ShuttingDown.code)


def request_families(metrics: RequestMetrics) -> Iterator[Metric]:
    """Everything that is counted of generations. An answer is a request: `n` answers are `n`."""
    finished = [({"finish_reason": reason}, n) for reason, n in metrics.finished.items()]
    cancelled = [({"cause": cause}, n) for cause, n in metrics.cancelled.items()]
    failures = dict.fromkeys(_USUAL_FAILURES, 0) | metrics.failed
    failed = [({"code": code}, n) for code, n in failures.items()]
    prefix = "millstream_requests"
    yield counter(f"{prefix}_started", "Requests sent to the engine", metrics.num_started)
    yield counters(f"{prefix}_finished", "Requests whose answer is complete", finished)
    yield counters(
        f"{prefix}_cancelled", "Requests whose client left, or asked for their end", cancelled
    )
    yield counters(f"{prefix}_failed", "Requests that ended with an error", failed)
    yield from _tokens(metrics)
    yield from _times(metrics)
    prefix = "millstream_request"
    yield histogram(
        f"{prefix}_prompt_tokens",
        "Tokens in the prompts of finished requests",
        metrics.prompt_tokens,
    )
    yield histogram(
        f"{prefix}_generated_tokens",
        "Tokens in the answers of finished requests",
        metrics.generated_tokens,
    )
    yield histogram(
        f"{prefix}_max_tokens",
        "Tokens that the answers of finished requests could have had",
        metrics.max_tokens,
    )


def http_families(metrics: HttpMetrics) -> Iterator[Metric]:
    """What was answered, by route, and what was refused."""
    responses = [
        ({"method": method, "route": route, "code": str(status or "none")}, n)
        for (method, route, status), n in metrics.responses.items()
    ]
    refusals = dict.fromkeys(_USUAL_REFUSALS, 0) | metrics.refused
    yield counters(
        "millstream_requests_refused",
        "HTTP requests and messages that got an error, and never reached the engine",
        [({"code": code}, n) for code, n in refusals.items()],
    )
    yield counters(
        "millstream_http_requests",
        "HTTP requests that have ended, and messages over WebSockets (method WS)",
        responses,
    )
    yield histograms(
        "millstream_http_request_duration_seconds",
        "Seconds from an HTTP request's headers to the last byte of its answer",
        [({"route": route}, each) for route, each in metrics.seconds.items()],
    )


def _tokens(metrics: RequestMetrics) -> Iterator[Metric]:
    yield counter(
        "millstream_prompt_tokens",
        "Prompt tokens, as clients are told; once for all answers to a prompt",
        metrics.num_prompt_tokens,
    )
    yield counter(
        "millstream_prompt_tokens_cached",
        "Prompt tokens found in the prefix cache, as clients are told",
        metrics.num_cached_tokens,
    )
    yield counter(
        "millstream_generated_tokens", "Tokens of answers, as sent", metrics.num_generated_tokens
    )
    yield counter(
        "millstream_prefix_cache_queries",
        "Prompt tokens looked for in the prefix cache, for each answer",
        metrics.num_queried,
    )
    yield counter(
        "millstream_prefix_cache_hits",
        "Prompt tokens found in the prefix cache, for each answer",
        metrics.num_hits,
    )


def _times(metrics: RequestMetrics) -> Iterator[Metric]:
    yield histogram(
        "millstream_time_to_first_token_seconds",
        "Seconds from the place that a request takes to its first token",
        metrics.first_token,
    )
    yield histogram(
        "millstream_inter_token_latency_seconds",
        "Seconds between two tokens of a request, as they leave the engine",
        metrics.between_tokens,
    )
    prefix = "millstream_request"
    yield histogram(
        f"{prefix}_preparation_seconds",
        "Seconds in which prompts are rendered and tokenised, and formats checked",
        metrics.preparation,
    )
    yield histogram(
        f"{prefix}_queue_seconds", "Seconds that requests wait in the engine to run", metrics.queue
    )
    yield histogram(
        f"{prefix}_prefill_seconds",
        "Seconds from when a request runs to its first token; finished ones",
        metrics.prefill,
    )
    yield histogram(
        f"{prefix}_decode_seconds",
        "Seconds from the first token of a request to its last; finished ones",
        metrics.decode,
    )
    yield histogram(
        f"{prefix}_inference_seconds", "Prefill and decode; finished requests", metrics.inference
    )
    yield histogram(
        f"{prefix}_duration_seconds",
        "Seconds from the place that a request takes to its end; finished ones",
        metrics.duration,
    )
    yield histogram(
        f"{prefix}_seconds_per_token",
        "Inference time by tokens of the answer; finished requests",
        metrics.per_token,
    )
    yield histogram(
        "millstream_grammar_compile_seconds",
        "Seconds in which the grammar of a format was compiled, beside the steps",
        metrics.compilation,
    )
