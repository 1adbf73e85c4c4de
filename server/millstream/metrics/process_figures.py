"""What a process uses, and what several processes use together."""

from __future__ import annotations

import msgspec


class ProcessFigures(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What the system says of one process, or the sum over several.

    cpu_nanoseconds: user and system time; an integer, so that sums are exact. start_time: of the
    first of them, in seconds since 1970. Memory is in bytes; what processes share counts in each.
    """

    cpu_nanoseconds: int
    start_time: float
    resident_bytes: int = 0
    virtual_bytes: int = 0
    num_descriptors: int = 0
    max_descriptors: int = 0

    def plus(self, other: ProcessFigures | None) -> ProcessFigures:
        """Those of both together."""
        if other is None:
            return self
        return ProcessFigures(
            cpu_nanoseconds=self.cpu_nanoseconds + other.cpu_nanoseconds,
            start_time=min(self.start_time, other.start_time),
            resident_bytes=self.resident_bytes + other.resident_bytes,
            virtual_bytes=self.virtual_bytes + other.virtual_bytes,
            num_descriptors=self.num_descriptors + other.num_descriptors,
            max_descriptors=self.max_descriptors + other.max_descriptors,
        )

    def when_ended(self) -> ProcessFigures:
        """What stays when the process has ended: its time, and when it began."""
        return ProcessFigures(cpu_nanoseconds=self.cpu_nanoseconds, start_time=self.start_time)
