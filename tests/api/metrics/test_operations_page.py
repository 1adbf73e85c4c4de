"""docs/operations.md cannot rot: its tables are what /metrics has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from millstream.api.context import ServerContext
from millstream.api.metrics.endpoint import all_families
from millstream.api.metrics.own_counts import OwnCounts
from millstream.api.metrics.tgi_names import NOT_SERVED
from millstream.core.archive import ArchiveStatistics
from millstream.quotas.key_ring import KeyRing
from millstream.runtime.messages import Step
from tests.api.serving import context

__all__ = ["context"]

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
TGI_NAMES = {
    *("tgi_request_count", "tgi_request_success", "tgi_request_failure"),
    *("tgi_batch_inference_count", "tgi_batch_inference_success", "tgi_batch_inference_failure"),
    *("tgi_batch_concat", "tgi_queue_size", "tgi_batch_current_size"),
    *("tgi_batch_current_max_tokens", "tgi_batch_max_total_tokens", "tgi_request_duration"),
    *("tgi_request_validation_duration", "tgi_request_queue_duration"),
    *("tgi_request_inference_duration", "tgi_request_mean_time_per_token_duration"),
    *("tgi_request_generated_tokens", "tgi_request_input_length", "tgi_request_max_new_tokens"),
    *("tgi_request_skipped_tokens", "tgi_batch_next_size", "tgi_batch_inference_duration"),
    *("tgi_batch_forward_duration", "tgi_batch_decode_duration", "tgi_batch_filter_duration"),
    "tgi_batch_concat_duration",
}
"""What Text Generation Inference 3.3 records (router/src and backends/v3/src)."""


@pytest.fixture
async def families(context: ServerContext, tmp_path: Path) -> list[Metric]:
    """Those of a server with everything: states, a cache folder, a key, something answered."""
    file = tmp_path / "keys.toml"
    file.write_text('[[keys]]\nlabel = "team"\nkey = "k"')
    context = replace(context, keys=KeyRing(file=file))
    engine = context.engine
    statistics = replace(
        engine.statistics, num_states=4, archive=ArchiveStatistics(), num_late_kernels=0
    )
    engine.on_message(Step([], [], statistics))
    context.http_metrics.on_response("GET", "/health", status=200, seconds=0.1)
    counts = OwnCounts(engine.streams.metrics, context.http_metrics).now()
    return list(all_families(context, counts))


def rows(families: Iterable[Metric], start: str) -> dict[str, Metric]:
    """The families whose names begin so, by the names that are asked for."""
    found = {}
    for family in families:
        if family.name.startswith(start):
            is_counter = family.type == "counter"
            found[f"{family.name}_total" if is_counter else family.name] = family
    return found


def table(mark: str) -> str:
    section: str = PAGE.split(f"<!-- {mark}: ")[1].split("-->\n")[1].split("<!-- end of")[0]
    return section.strip()


def labels_of(family: Metric) -> str:
    names = dict.fromkeys(name for sample in family.samples for name in sample.labels)
    return ", ".join(f"`{name}`" for name in names if name != "le")


def test_every_name_is_told(families: list[Metric]) -> None:
    expected = ["| name | type | labels | what it is |", "|---|---|---|---|"]
    for start in ("millstream_", "process_"):
        expected += [
            f"| `{name}` | {family.type} | {labels_of(family)} | {family.documentation} |"
            for name, family in rows(families, start).items()
        ]
    assert table("metrics") == "\n".join(expected), "\n".join(expected)


def test_every_name_of_vllm_is_told(families: list[Metric]) -> None:
    expected = ["| name | here |", "|---|---|"]
    expected += [
        f"| `{name}` | {family.documentation} |" for name, family in rows(families, "vllm:").items()
    ]
    assert table("vllm") == "\n".join(expected), "\n".join(expected)


def test_every_name_of_tgi_is_told(families: list[Metric]) -> None:
    served = rows(families, "tgi_")
    assert served.keys() | NOT_SERVED.keys() == TGI_NAMES
    assert not served.keys() & NOT_SERVED.keys()
    expected = ["| name | here |", "|---|---|"]
    expected += [f"| `{name}` | {family.documentation} |" for name, family in served.items()]
    expected += [f"| `{name}` | not there: {why} |" for name, why in NOT_SERVED.items()]
    assert table("tgi") == "\n".join(expected), "\n".join(expected)


def test_names_that_are_named_are_there(families: list[Metric]) -> None:
    known = rows(families, "millstream_").keys() | rows(families, "process_").keys()
    assert set(re.findall(r"\bmillstream_\w+", PAGE)) <= known


def test_names_are_as_prometheus_wants_them(families: list[Metric]) -> None:
    """https://prometheus.io/docs/practices/naming: base units, and counters that say so."""
    for name, family in rows(families, "millstream_").items():
        assert name.endswith("_total") == (family.type == "counter"), name
        assert not re.search(r"_(ms|milliseconds|minutes|mb|kb|percent|count)(_|$)", name)
        if family.type == "histogram":
            assert re.search(r"_(seconds|tokens|seconds_per_token)$", name), name
        assert not family.documentation.endswith("."), name
