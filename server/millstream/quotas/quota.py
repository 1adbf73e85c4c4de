"""How much the owner of one key has asked for, and whether there may be more.

Rules:
1. A request is counted when it takes its places, whatever becomes of it then, unless the server
   itself has no place for it. Its answers at once are those that hold a place.
2. Tokens are those that are computed: of the prompt what is not found in the prefix cache, and of
   the answer all. Before an answer begins, its whole prompt and a guess of its length are taken;
   when it is over, the difference is made up.
3. Whoever was let in is never broken off.
"""

from __future__ import annotations

import math
from dataclasses import replace

from millstream.core.request import Request
from millstream.errors import ContextTooLong, InvalidRequest, RateLimited
from millstream.metrics.request_metrics import RequestLife
from millstream.quotas.account import (
    CONCURRENT,
    REQUESTS,
    TOKENS,
    Account,
    AccountState,
    KeyCounts,
    ProcessAccount,
)
from millstream.quotas.bucket import TokenBucket
from millstream.quotas.limits import Allowance, KeyLimits

GUESSED_ANSWER = 256
"""Tokens that an answer is taken to have until it is over, if it may have so many."""

_CONCURRENT_RETRY_SECONDS = 1.0


class Quota:
    """How much one key may ask for. For the event loop's thread.

    label: what the operator calls the key; empty for one without a name. account: keeps what was
    asked for with the key; by default a new one that no other process sees.
    """

    def __init__(
        self, label: str = "", limits: KeyLimits | None = None, *, account: Account | None = None
    ) -> None:
        self.label = label
        self._account = account or ProcessAccount()
        self.limits = limits or KeyLimits()

    @property
    def limits(self) -> KeyLimits:
        """They may change while requests run."""
        return self._limits

    @limits.setter
    def limits(self, limits: KeyLimits) -> None:
        self._limits = limits
        with self._account.held() as state:
            state.requests = _limited(state.requests, limits.requests_per_minute)
            state.tokens = _limited(state.tokens, limits.tokens_per_minute)

    @property
    def requests(self) -> Allowance | None:
        """What is left of the requests of a minute."""
        with self._account.held() as state:
            return _allowance(state.requests)

    @property
    def tokens(self) -> Allowance | None:
        """What is left of the tokens of a minute."""
        with self._account.held() as state:
            return _allowance(state.tokens)

    @property
    def counts(self) -> KeyCounts:
        """What was counted until now, as a copy."""
        with self._account.held() as state:
            return replace(state.counts, refused=dict(state.counts.refused))

    def admit(self, count: int, *, param: str) -> list[Meter]:
        """Lets a request in that wants so many answers. param: the field to change for fewer.

        Raises RateLimited, and InvalidRequest if there never may be so many answers at once.
        """
        most = self.limits.max_concurrent_requests
        if most is not None and count > most:
            raise InvalidRequest(
                f"{param}: {count} answers are wanted, and this API key may have {most} at once",
                param=param,
            )
        with self._account.held() as state:
            counts = state.counts
            if most is not None and counts.num_open + count > most:
                what = f"{most} answers at once"
                raise _refusal(counts, CONCURRENT, what, _CONCURRENT_RETRY_SECONDS)
            _check(state, REQUESTS, 1)
            _check(state, TOKENS, 1)
            if state.requests is not None:
                state.requests.take(1)
            counts.num_requests += 1
            counts.num_open += count
        return [Meter(self) for _ in range(count)]

    def take_back(self, meters: list[Meter]) -> None:
        """Undoes that a request was let in, for which the server has no places."""
        with self._account.held() as state:
            if state.requests is not None:
                state.requests.take(-1)
            state.counts.num_requests -= 1
            state.counts.num_open -= len(meters)

    def reserve(self, *, num_prompt: int, max_tokens: int) -> int:
        """Takes what an answer will probably cost, and returns how much that is.

        Raises RateLimited, and ContextTooLong for a prompt that is longer than a minute's worth.
        """
        with self._account.held() as state:
            if state.tokens is None:
                return 0
            limit = state.tokens.per_minute
            if num_prompt > limit:
                raise ContextTooLong(
                    f"The prompt has {num_prompt} tokens, more than the {limit} tokens per minute "
                    "of this API key. Shorten the prompt.",
                    num_tokens=num_prompt,
                    limit=limit,
                )
            cost = min(num_prompt + min(max_tokens, GUESSED_ANSWER), limit)
            _check(state, TOKENS, cost)
            state.tokens.take(cost)
            return cost

    def settle(self, reserved: int, life: RequestLife) -> None:
        """An answer is over, and what it has cost is known."""
        has_run = life.queue_seconds is not None or life.first_token is not None
        num_prompt = life.num_prompt if life.is_leader and has_run else 0
        num_cached = life.num_cached if life.is_leader else 0
        with self._account.held() as state:
            counts = state.counts
            counts.num_open -= 1
            counts.num_prompt += num_prompt
            counts.num_cached += num_cached
            counts.num_generated += life.num_generated
            if state.tokens is not None:
                state.tokens.take(num_prompt - num_cached + life.num_generated - reserved)


class Meter:
    """What one answer costs, from its place to its end."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._reserved = 0

    def begin(self, request: Request) -> Request:
        """The request, as long as the key's answers may be. Raises as `Quota.reserve()` does."""
        most = self._quota.limits.max_output_tokens
        if most is not None and request.max_tokens > most:
            request = replace(request, max_tokens=most)
        self._reserved = self._quota.reserve(
            num_prompt=len(request.prompt) if request.follows is None else 0,
            max_tokens=request.max_tokens,
        )
        return request

    def end(self, life: RequestLife) -> None:
        """The place was given back."""
        self._quota.settle(self._reserved, life)


def _limited(bucket: TokenBucket | None, per_minute: int | None) -> TokenBucket | None:
    """What becomes of a bucket when its limit is, or stays, `per_minute`."""
    if per_minute is None or bucket is None:
        return None if per_minute is None else TokenBucket.full(per_minute)
    bucket.change(per_minute)
    return bucket


def _check(state: AccountState, kind: str, amount: int) -> None:
    """Raises RateLimited if so much cannot be taken. kind: REQUESTS or TOKENS."""
    bucket = state.requests if kind == REQUESTS else state.tokens
    if bucket is None or bucket.level >= amount:
        return
    what = f"{bucket.per_minute} {kind} per minute, of which {amount} {_are(amount)} needed"
    what += f" and {max(math.floor(bucket.level), 0)} left"
    raise _refusal(state.counts, kind, what, bucket.seconds_until(amount))


def _refusal(counts: KeyCounts, kind: str, what: str, seconds: float) -> RateLimited:
    """Counts a refusal, and says what to tell."""
    counts.refused[kind] += 1
    wait = max(math.ceil(seconds), 1)
    return RateLimited(
        f"Rate limit reached: this API key may have {what}. Try again in {wait} s.",
        kind=TOKENS if kind == TOKENS else REQUESTS,
        retry_after=wait,
    )


def _allowance(bucket: TokenBucket | None) -> Allowance | None:
    if bucket is None:
        return None
    return Allowance(
        limit=bucket.per_minute,
        remaining=max(math.floor(bucket.level), 0),
        reset_seconds=bucket.seconds_until(bucket.per_minute),
    )


def _are(amount: int) -> str:
    return "is" if amount == 1 else "are"
