"""The names that vLLM has for the same things (vllm/v1/metrics/loggers.py), for the
routers, autoscalers and dashboards that know them.

Rule: a name stands here only where it means the same. What differs is left out, so that a panel
stays empty rather than wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from millstream.api.metrics.families import counter, counters, gauge, histogram, same_as
from millstream.core.status import EngineInfo
from millstream.metrics.request_metrics import RequestMetrics
from millstream.runtime.client import EngineClient
from millstream.runtime.state import State


def vllm_families(engine: EngineClient, metrics: RequestMetrics, *, model: str) -> Iterator[Metric]:
    """model: its name, a label of all of them, as is the number of the one engine."""
    labels = {"model_name": model, "engine": "0"}
    now = engine.statistics
    for name, value, ours in (
        ("num_requests_running", now.num_running, "requests_running"),
        ("num_requests_waiting", now.num_waiting, "requests_waiting"),
        ("kv_cache_usage_perc", now.cache_usage, "kv_cache_usage_ratio"),
        ("gpu_cache_usage_perc", now.cache_usage, "kv_cache_usage_ratio"),
    ):
        yield gauge(f"vllm:{name}", same_as(ours), value, labels)
    counted = engine.history.counters(now)
    for name, value, ours in (
        ("num_preemptions", counted["num_preemptions"], "preemptions_total"),
        ("spec_decode_num_drafts", counted["num_drafts"], "speculation_drafts_total"),
        (
            "spec_decode_num_draft_tokens",
            counted["num_draft_tokens"],
            "speculation_draft_tokens_total",
        ),
        (
            "spec_decode_num_accepted_tokens",
            counted["num_accepted_tokens"],
            "speculation_accepted_tokens_total",
        ),
        ("prompt_tokens", metrics.num_prompt_tokens, "prompt_tokens_total"),
        ("prompt_tokens_cached", metrics.num_cached_tokens, "prompt_tokens_cached_total"),
        ("generation_tokens", metrics.num_generated_tokens, "generated_tokens_total"),
        ("prefix_cache_queries", metrics.num_queried, "prefix_cache_queries_total"),
        ("prefix_cache_hits", metrics.num_hits, "prefix_cache_hits_total"),
    ):
        yield counter(f"vllm:{name}", same_as(ours), value, labels)
    yield counters(
        "vllm:request_success",
        "`millstream_requests_finished_total`; `abort` is what was cancelled, `error` what failed",
        [({**labels, "finished_reason": reason}, n) for reason, n in _endings(metrics)],
    )
    for name, values, ours in (
        ("time_to_first_token_seconds", metrics.first_token, "time_to_first_token_seconds"),
        ("inter_token_latency_seconds", metrics.between_tokens, "inter_token_latency_seconds"),
        ("time_per_output_token_seconds", metrics.between_tokens, "inter_token_latency_seconds"),
        ("e2e_request_latency_seconds", metrics.duration, "request_duration_seconds"),
        ("request_queue_time_seconds", metrics.queue, "request_queue_seconds"),
        ("request_prefill_time_seconds", metrics.prefill, "request_prefill_seconds"),
        ("request_decode_time_seconds", metrics.decode, "request_decode_seconds"),
        ("request_inference_time_seconds", metrics.inference, "request_inference_seconds"),
        ("request_prompt_tokens", metrics.prompt_tokens, "request_prompt_tokens"),
        ("request_generation_tokens", metrics.generated_tokens, "request_generated_tokens"),
        ("request_params_max_tokens", metrics.max_tokens, "request_max_tokens"),
    ):
        yield histogram(f"vllm:{name}", same_as(ours), values, labels)
    if engine.state in (State.READY, State.STUCK):
        yield _cache_config(engine.info)
    yield gauge(
        "vllm:lora_requests_info",
        "0: no adapters are served",
        0.0,
        {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""},
    )


def _endings(metrics: RequestMetrics) -> Iterator[tuple[str, int]]:
    yield from metrics.finished.items()
    yield "abort", metrics.cancelled.total()
    yield "error", metrics.failed.total()


def _cache_config(info: EngineInfo) -> Metric:
    labels = {
        "engine": "0",
        "block_size": str(info.block_size),
        "num_gpu_blocks": str(info.num_blocks),
        "cache_dtype": info.dtype,
        "enable_prefix_caching": "True",
    }
    return gauge("vllm:cache_config_info", "1; labels tell of the KV cache", 1.0, labels)
