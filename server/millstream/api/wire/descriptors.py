"""How many connections there may be, so that descriptors are left for everything else.

Starting an engine again, or a child that checks a grammar, takes a few. A server whose clients hold
all of them, idle or not, could do neither.
"""

from __future__ import annotations

import contextlib
import resource

_WANTED = 65_536
_SET_ASIDE = 128


def max_connections() -> int:
    """Connections that may be open at a time. Raises this process's own limit where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = _WANTED
    return max(soft - _SET_ASIDE, soft // 2)
