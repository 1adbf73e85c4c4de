"""What this process has counted, and what it uses."""

from __future__ import annotations

import asyncio

from prometheus_client import ProcessCollector

from millstream.metrics.counts import Counts
from millstream.metrics.http_metrics import HttpMetrics
from millstream.metrics.process_figures import ProcessFigures
from millstream.metrics.request_metrics import RequestMetrics


class OwnCounts:
    """The source of counts of a server with one HTTP process. For the event loop's thread."""

    def __init__(self, requests: RequestMetrics, http: HttpMetrics) -> None:
        self._requests = requests
        self._http = http
        self._process = ProcessCollector(registry=None)

    def now(self) -> Counts:
        """The counts themselves, not a copy: they go on counting."""
        return Counts(
            requests=self._requests,
            http=self._http,
            num_tasks=len(asyncio.all_tasks()),
            num_processes=1,
            process=self._figures(),
        )

    async def all(self) -> Counts:
        """Its own counts are all: there is no other process."""
        return self.now()

    def _figures(self) -> ProcessFigures | None:
        """What the process uses; None if the system does not tell all of it."""
        values = {family.name: family.samples[0].value for family in self._process.collect()}
        try:
            return ProcessFigures(
                cpu_nanoseconds=round(values["process_cpu_seconds"] * 1e9),
                start_time=values["process_start_time_seconds"],
                resident_bytes=int(values["process_resident_memory_bytes"]),
                virtual_bytes=int(values["process_virtual_memory_bytes"]),
                num_descriptors=int(values["process_open_fds"]),
                max_descriptors=int(values["process_max_fds"]),
            )
        except KeyError:
            return None
