"""Numbers of HTTP workers, and the ids of requests that tell whose they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

_WORKER_SHIFT = 48
_START_SHIFT = 32


def request_ids(worker: int, *, start: int) -> Iterator[int]:
    """New ids of requests, which no other worker has, and none had before.

    worker: from 0 on. start: how many processes of that number were started before; what the engine
    has still to say to one that is gone is then nothing to its successor.
    """
    return itertools.count((worker << _WORKER_SHIFT) + (start << _START_SHIFT) + 1)


def worker_of(request_id: int) -> int:
    """The worker whose request it is."""
    return request_id >> _WORKER_SHIFT
