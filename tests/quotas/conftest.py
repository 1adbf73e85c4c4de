"""A clock that goes when it is told to, and requests."""

from __future__ import annotations

from typing import Protocol

import pytest

from millstream.core.request import Request, SamplingParams
from millstream.metrics.request_metrics import RequestLife
from millstream.quotas.account import Ledger, ProcessLedger
from millstream.quotas.limits import KeyLimits
from millstream.quotas.quota import Quota

DIGEST = bytes(range(32))


class Clock:
    """Seconds since some moment."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class MakeQuota(Protocol):
    """Makes the quota of a key that has these limits."""

    def __call__(self, **limits: int) -> Quota: ...


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return ProcessLedger(clock)


@pytest.fixture
def quota(ledger: Ledger) -> MakeQuota:
    def make(**limits: int) -> Quota:
        (account,) = ledger.accounts([DIGEST])
        return Quota("team", KeyLimits(**limits), account=account)

    return make


def request(*, prompt: int = 10, max_tokens: int = 20, follows: int | None = None) -> Request:
    """prompt: its tokens."""
    return Request(
        id=1,
        prompt=(1,) * prompt,
        sampling=SamplingParams(),
        max_tokens=max_tokens,
        follows=follows,
    )


def life(
    *,
    prompt: int,
    cached: int = 0,
    generated: int = 0,
    has_run: bool = True,
    is_leader: bool = True,
) -> RequestLife:
    """What became of a request that was sent to the engine."""
    life = RequestLife()
    life.num_prompt, life.num_generated, life.is_leader = prompt, generated, is_leader
    if has_run:
        life.queue_seconds = 0.0
    if generated:
        life.first_token, life.num_cached = 0.0, cached
    return life
