"""The names that Text Generation Inference has for the same things (its docs/source/reference/
metrics.md, and router/src/), for dashboards that know them.

Rule: as for vLLM's. Its batches are of one kind, prefill or decode, while a step here has both, so
its figures of batches have no counterpart. Its counters have no `_total`, which Prometheus' own
format for counters demands: their type is left open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric, UnknownMetricFamily

from millstream.api.metrics.families import Labels, gauge, histogram, same_as
from millstream.core.status import Statistics
from millstream.errors import Overloaded
from millstream.metrics.counts import Counts

NOT_SERVED = {
    "tgi_batch_current_max_tokens": "blocks are taken as they are needed: "
    "`millstream_kv_cache_used_blocks`",
    "tgi_batch_max_total_tokens": "`millstream_kv_cache_blocks` times the size of a block",
    "tgi_batch_inference_count": "a step has prompts and answers in one batch",
    "tgi_batch_inference_success": "as above",
    "tgi_batch_inference_failure": "`millstream_requests_failed_total`",
    "tgi_batch_inference_duration": "`millstream_inter_token_latency_seconds` for answers, "
    "`millstream_request_prefill_seconds` for prompts",
    "tgi_batch_forward_duration": "as above",
    "tgi_batch_decode_duration": "as above",
    "tgi_batch_filter_duration": "batches are not filtered",
    "tgi_batch_concat": "batches are not joined: each step is planned anew",
    "tgi_batch_concat_duration": "as above",
    "tgi_batch_next_size": "as above",
    "tgi_request_skipped_tokens": "see `millstream_speculation_accepted_tokens_total`",
}
"""What has no counterpart, and what comes nearest."""


def tgi_families(now: Statistics, counts: Counts) -> Iterator[Metric]:
    """What its dashboard and autoscalers ask for. now: how the engine stands."""
    metrics = counts.requests
    refused, failed = counts.http.refused_answers, metrics.failed
    full = Overloaded.code
    yield _count(
        "tgi_request_count",
        "`millstream_requests_started_total`, and what was refused of those that ask for an answer",
        [({}, metrics.num_started + refused.total())],
    )
    yield _count(
        "tgi_request_success",
        "`millstream_requests_finished_total`, all reasons",
        [({}, metrics.finished.total())],
    )
    yield _count(
        "tgi_request_failure",
        "by `err`: `overloaded`, `validation` (refused otherwise), `generation` (failed), "
        "`dropped` (cancelled)",
        [
            ({"err": "overloaded"}, refused[full] + failed[full]),
            ({"err": "validation"}, refused.total() - refused[full]),
            ({"err": "generation"}, failed.total() - failed[full]),
            ({"err": "dropped"}, metrics.cancelled.total()),
        ],
    )
    for name, value, ours in (
        ("queue_size", now.num_waiting, "requests_waiting"),
        ("batch_current_size", now.num_running, "requests_running"),
    ):
        yield gauge(f"tgi_{name}", same_as(ours), value)
    for name, values, ours in (
        ("duration", metrics.duration, "request_duration_seconds"),
        ("validation_duration", metrics.preparation, "request_preparation_seconds"),
        ("queue_duration", metrics.queue, "request_queue_seconds"),
        ("inference_duration", metrics.inference, "request_inference_seconds"),
        ("mean_time_per_token_duration", metrics.per_token, "request_seconds_per_token"),
        ("input_length", metrics.prompt_tokens, "request_prompt_tokens"),
        ("generated_tokens", metrics.generated_tokens, "request_generated_tokens"),
        ("max_new_tokens", metrics.max_tokens, "request_max_tokens"),
    ):
        yield histogram(f"tgi_request_{name}", same_as(ours), values)


def _count(name: str, text: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    family = UnknownMetricFamily(name, text)
    for labels, value in values:
        family.add_sample(name, dict(labels), value)
    return family
