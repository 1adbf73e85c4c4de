"""What is counted of one key, and where that is kept.

An account is kept in this process, or where the other HTTP processes of the server see it too.
Whoever asks something of it, or changes it, holds it meanwhile: what is checked and then taken is
still there, whichever process takes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from millstream.quotas.bucket import TokenBucket

Clock = Callable[[], float]

REQUESTS, TOKENS, CONCURRENT = "requests", "tokens", "concurrent_requests"
"""The limits by which a request can be refused."""


@dataclass(slots=True)
class KeyCounts:
    """num_open: answers that hold a place. num_requests: those let in. num_prompt, num_cached,
    num_generated: tokens. refused: requests, by the limit that they met."""

    num_open: int = 0
    num_requests: int = 0
    num_prompt: int = 0
    num_cached: int = 0
    num_generated: int = 0
    refused: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((REQUESTS, TOKENS, CONCURRENT), 0)
    )


@dataclass(slots=True)
class AccountState:
    """requests, tokens: None without such a limit. filled: when the buckets were filled last, in
    seconds of a clock that only goes forward."""

    requests: TokenBucket | None = None
    tokens: TokenBucket | None = None
    filled: float = 0.0
    counts: KeyCounts = field(default_factory=KeyCounts)

    def fill(self, now: float) -> None:
        """Adds to both buckets what has become free since they were filled last."""
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.fill(now - self.filled)
        self.filled = now


class Account(Protocol):
    """Keeps the state of one key."""

    def held(self) -> AbstractContextManager[AccountState]:
        """The state as it is now. Until the context ends nobody else sees or changes it, and what
        was changed then stays, also if the context ends by an error. Not to be nested."""


class Ledger(Protocol):
    """Keeps the accounts of all keys."""

    def accounts(self, digests: Sequence[bytes]) -> list[Account]:
        """Those of keys by their SHA-256, in this order, for keys that had none in this process.

        Raises StartupError if there is no room for all of them.
        """


class ProcessAccount:
    """An account that no other process sees. For one thread. clock: seconds."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._state = AccountState()
        self._held = nullcontext(self._state)

    def held(self) -> AbstractContextManager[AccountState]:
        """The state as it is now."""
        self._state.fill(self._clock())
        return self._held


class ProcessLedger:
    """Accounts that no other process sees: all begin anew. clock: seconds."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock

    def accounts(self, digests: Sequence[bytes]) -> list[Account]:
        """A new account for each."""
        return [ProcessAccount(self._clock) for _ in digests]
