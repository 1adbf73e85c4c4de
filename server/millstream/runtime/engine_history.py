"""Counters of engines that follow one another: what is counted from an engine's start, and must not
go back when the next one takes its place."""

from __future__ import annotations

from collections import Counter

from millstream.core.status import Statistics

_COUNTERS = (
    "num_preemptions",
    "num_drafts",
    "num_draft_tokens",
    "num_accepted_tokens",
    "num_late_kernels",
)
_ARCHIVE_COUNTERS = (
    "num_read",
    "bytes_read",
    "num_written",
    "bytes_written",
    "num_skipped",
    "num_damaged",
)


class EngineHistory:
    """What the engines before this one had counted when they ended, and how many there were.

    counted_before: sums of them, by the names that `counters()` has.
    """

    def __init__(self) -> None:
        self.num_restarts = 0
        self.counted_before: Counter[str] = Counter()

    def on_end(self, last: Statistics, *, is_replaced: bool) -> None:
        """An engine has ended. last: what it said of itself last."""
        self.counted_before.update(_counters(last))
        self.num_restarts += is_replaced

    def counters(self, now: Statistics) -> Counter[str]:
        """The sums over all engines: preemptions, guesses, late kernels, and `archive.NAME` for
        what is kept on disk."""
        return self.counted_before + _counters(now)


def _counters(statistics: Statistics) -> Counter[str]:
    counted = Counter({name: getattr(statistics, name) or 0 for name in _COUNTERS})
    if statistics.archive is not None:
        for name in _ARCHIVE_COUNTERS:
            counted[f"archive.{name}"] = getattr(statistics.archive, name)
    return counted
