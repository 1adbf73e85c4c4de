"""What an engine is doing, as `/health` and `/metrics` name it."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    STUCK = "stuck"
    DRAINING = "shutting_down"
    FAILED = "failed"
