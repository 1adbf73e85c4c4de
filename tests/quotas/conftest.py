"""A clock that goes when it is told to, requests, and quotas of accounts of both kinds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any, Protocol, cast

import pytest

from millstream.core.request import Request, SamplingParams
from millstream.metrics.request_metrics import RequestLife
from millstream.quotas.account import Ledger, ProcessLedger
from millstream.quotas.limits import KeyLimits
from millstream.quotas.quota import Quota
from millstream.quotas.shared_ledger import SharedLedger
from millstream.quotas.shared_table import SharedTable, shared_table_bytes
from millstream.shared_memory import SharedMemory

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
def table() -> SharedTable:
    return SharedTable(SharedMemory.create(shared_table_bytes(1, 2)), num_workers=2)


@pytest.fixture(params=["process", "shared"])
def ledger(request: pytest.FixtureRequest, clock: Clock) -> Ledger:
    if request.param == "process":
        return ProcessLedger(clock)
    return SharedLedger(request.getfixturevalue("table"), worker=1, clock=clock)


@pytest.fixture(params=["process", "shared"])
def quota(request: pytest.FixtureRequest, clock: Clock) -> MakeQuota:
    """Those that are shared are used by two workers in turn."""
    ledgers: list[Ledger] = [ProcessLedger(clock)]
    if request.param == "shared":
        table = request.getfixturevalue("table")
        ledgers = [SharedLedger(table, worker=worker, clock=clock) for worker in range(2)]

    def make(**limits: int) -> Quota:
        accounts = [ledger.accounts([DIGEST])[0] for ledger in ledgers]
        quotas = [Quota("team", KeyLimits(**limits), account=account) for account in accounts]
        return cast(Quota, _InTurn(quotas))

    return make


class _InTurn:
    """One quota as several processes see it: each use of it is by the next. Limits are set in all,
    as each process reads the file."""

    def __init__(self, quotas: Iterable[Quota]) -> None:
        self.__dict__["quotas"] = list(quotas)
        self.__dict__["turns"] = cycle(self.quotas)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self.turns), name)

    def __setattr__(self, name: str, value: Any) -> None:
        for quota in self.quotas:
            setattr(quota, name, value)


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
