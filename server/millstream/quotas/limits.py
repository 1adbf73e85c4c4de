"""What one key may ask for, and how much of it is left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """The limits of one key; None where there is none.

    max_concurrent_requests: answers at once, running and waiting. max_output_tokens: of one answer.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of one limit per minute. reset_seconds: until all of it is there again."""

    limit: int
    remaining: int
    reset_seconds: float
