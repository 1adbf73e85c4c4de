"""Numbers of HTTP workers, and the ids of requests that tell whose they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

_SHIFT = 48


def request_ids(worker: int) -> Iterator[int]:
    """New ids of requests, which no other worker has. worker: from 0 on."""
    return itertools.count((worker << _SHIFT) + 1)


def worker_of(request_id: int) -> int:
    """The worker whose request it is."""
    return request_id >> _SHIFT
