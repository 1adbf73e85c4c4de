"""How the engine stands, by the names of this server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from millstream.api.metrics.families import counter, gauge, gauges
from millstream.core.archive import ArchiveStatistics
from millstream.core.status import Statistics
from millstream.runtime.client import EngineClient
from millstream.runtime.state import State


def engine_families(engine: EngineClient) -> Iterator[Metric]:
    """What the engine said last of its work, and what was counted over all engines."""
    now = engine.statistics
    counted = engine.history.counters(now)
    yield gauges(
        "millstream_state",
        "1 for the state that the server is in",
        [({"state": state.value}, float(state is engine.state)) for state in State],
    )
    yield counter(
        "millstream_engine_restarts",
        "Engines that ended and were replaced",
        engine.history.num_restarts,
    )
    yield gauge("millstream_requests_open", "Requests that hold a place", engine.num_open)
    yield gauge("millstream_places", "Places for requests, running and waiting", engine.max_open)
    yield gauge("millstream_requests_running", "Requests in the batch", now.num_running)
    yield gauge("millstream_requests_waiting", "Requests that wait to run", now.num_waiting)
    yield gauge(
        "millstream_queued_prompt_tokens",
        "Prompt tokens that wait for their first answer token",
        engine.num_waiting_tokens,
    )
    yield from _cache(now)
    yield counter(
        "millstream_preemptions",
        "Requests put back to waiting because the KV cache was full",
        counted["num_preemptions"],
    )
    yield from _speculation(counted)
    if now.num_late_kernels is not None:
        yield counter(
            "millstream_late_kernels",
            "Kernels compiled for the device while requests were served; should be 0",
            counted["num_late_kernels"],
        )
    if now.archive is not None:
        yield from _archive(now.archive, counted)


def _cache(now: Statistics) -> Iterator[Metric]:
    prefix = "millstream_kv_cache"
    yield gauge(f"{prefix}_usage_ratio", "Part of the blocks that requests hold", now.cache_usage)
    yield gauge(f"{prefix}_blocks", "Blocks of the KV cache", now.num_blocks)
    yield gauge(f"{prefix}_used_blocks", "Blocks that requests hold", now.num_blocks_used)
    yield gauge(
        f"{prefix}_cached_blocks",
        "Blocks in which a prefix can be found, held or not",
        now.num_blocks_cached,
    )
    if now.num_states:
        prefix = "millstream_states"
        yield gauge(prefix, "Slots for the states of sequences", now.num_states)
        yield gauge(f"{prefix}_used", "Slots that are held", now.num_states_used)
        yield gauge(f"{prefix}_cached", "Slots to go on from", now.num_states_cached)


def _speculation(counted: dict[str, int]) -> Iterator[Metric]:
    for name, text in (
        ("num_drafts", "Times that an answer had guessed tokens in a step"),
        ("num_draft_tokens", "Tokens guessed ahead of answers"),
        ("num_accepted_tokens", "Guessed tokens that turned out to be the answer's"),
    ):
        yield counter(f"millstream_speculation_{name.removeprefix('num_')}", text, counted[name])


def _archive(now: ArchiveStatistics, counted: dict[str, int]) -> Iterator[Metric]:
    prefix = "millstream_cache_folder"
    yield gauge(f"{prefix}_blocks", "Blocks kept in files", now.num_blocks)
    yield gauge(f"{prefix}_bytes", "Bytes of the files", now.num_bytes)
    for name, text in (
        ("num_read", "Blocks read from files"),
        ("bytes_read", "Bytes read from files"),
        ("num_written", "Blocks written to files"),
        ("bytes_written", "Bytes written to files"),
        ("num_skipped", "Blocks not kept because the disk was behind, or full"),
        ("num_damaged", "Blocks that were not what was written, and were deleted"),
    ):
        what, _, done = name.partition("_")
        unit = "blocks" if what == "num" else "bytes"
        yield counter(f"{prefix}_{done}_{unit}", text, counted[f"archive.{name}"])
