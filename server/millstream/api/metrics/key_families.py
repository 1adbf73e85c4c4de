"""What the owners of labelled keys have asked for. Only labels of the keys' file are series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from millstream.api.metrics.families import counters, gauges
from millstream.quotas.quota import Quota


def key_families(quotas: Iterable[Quota]) -> Iterator[Metric]:
    """The families; none for a server without a file of keys."""
    known = [({"key": quota.label}, quota.counts) for quota in quotas]
    if not known:
        return
    prefix = "millstream_key"
    yield gauges(
        f"{prefix}_requests_open",
        "Requests of a key that hold a place",
        [(labels, counts.num_open) for labels, counts in known],
    )
    yield counters(
        f"{prefix}_requests",
        "HTTP requests and messages of a key that took their places",
        [(labels, counts.num_requests) for labels, counts in known],
    )
    yield counters(
        f"{prefix}_refused",
        "HTTP requests and messages of a key that were refused, by the limit that they met",
        [
            (labels | {"limit": limit}, count)
            for labels, counts in known
            for limit, count in counts.refused.items()
        ],
    )
    yield counters(
        f"{prefix}_tokens",
        "Tokens of a key: of prompts (computed or found in the prefix cache) and of answers",
        [
            (labels | {"kind": kind}, count)
            for labels, counts in known
            for kind, count in (
                ("computed", counts.num_prompt - counts.num_cached),
                ("cached", counts.num_cached),
                ("generated", counts.num_generated),
            )
        ],
    )
