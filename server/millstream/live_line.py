"""A line at the foot of a terminal that says how busy the server is.

Rules: it is there only while there is something to say, and only in a terminal; a line of the log
takes its place, and it comes again below. It is written in a thread, because a terminal that its
user has stopped takes nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Protocol, TextIO

from millstream.core.status import Statistics
from millstream.settings import Settings

_SECONDS = 1.0
_ERASE_LINE = "\r\x1b[K"


class Load(Protocol):
    """How busy a server is. num_open: requests that hold a place. num_generated_tokens: so far."""

    @property
    def num_open(self) -> int: ...

    @property
    def num_generated_tokens(self) -> int: ...

    @property
    def statistics(self) -> Statistics: ...


class LiveLine:
    """What the line says, from one look to the next."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._num_tokens = load.num_generated_tokens
        self._looked = time.monotonic()

    def text(self) -> str:
        """The line; empty while nothing happens."""
        now, num_tokens = time.monotonic(), self._load.num_generated_tokens
        rate = (num_tokens - self._num_tokens) / max(now - self._looked, 1e-9)
        self._looked, self._num_tokens = now, num_tokens
        stands = self._load.statistics
        if not (self._load.num_open or rate):
            return ""
        return (
            f"{stands.num_running} running, {stands.num_waiting} waiting, "
            f"{rate:,.0f} tokens/s, KV cache {stands.cache_usage:.0%}"
        )


async def show_load(load: Load, settings: Settings, *, out: TextIO | None = None) -> None:
    """Shows the line on standard error until it is cancelled; nothing where that is no terminal, or
    the log is for machines, or tells of nothing but trouble."""
    out = out or sys.stderr
    is_wanted = settings.log_format == "text" and settings.log_level in ("debug", "info")
    if not (is_wanted and out.isatty()):
        return
    line, shown = LiveLine(load), ""
    try:
        while True:
            await asyncio.sleep(_SECONDS)
            text = line.text()
            if text or shown:
                await asyncio.to_thread(_write, out, text)
            shown = text
    finally:
        if shown:
            _write(out, "")


def _write(out: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):  # the terminal may be gone
        out.write(_ERASE_LINE + text)
        out.flush()
