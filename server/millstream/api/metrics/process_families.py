"""What the HTTP processes use, by the names that all clients of Prometheus have for it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from millstream.api.metrics.families import counter, gauge
from millstream.metrics.process_figures import ProcessFigures


def process_families(figures: ProcessFigures | None) -> Iterator[Metric]:
    """The families, with the words of prometheus_client; none where the system tells nothing."""
    if figures is None:
        return
    for name, text, value in (
        ("virtual_memory_bytes", "Virtual memory size in bytes.", figures.virtual_bytes),
        ("resident_memory_bytes", "Resident memory size in bytes.", figures.resident_bytes),
        (
            "start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            figures.start_time,
        ),
    ):
        yield gauge(f"process_{name}", text, value)
    yield counter(
        "process_cpu_seconds",
        "Total user and system CPU time spent in seconds.",
        figures.cpu_nanoseconds / 1e9,
    )
    for name, text, value in (
        ("open_fds", "Number of open file descriptors.", figures.num_descriptors),
        ("max_fds", "Maximum number of open file descriptors.", figures.max_descriptors),
    ):
        yield gauge(f"process_{name}", text, value)
