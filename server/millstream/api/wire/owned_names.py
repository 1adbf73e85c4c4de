"""The names by which a running request can be cancelled, where its client chose them."""

from __future__ import annotations

_BETWEEN = ":"
"""No id that a request has contains it, whether chosen by its client or made here."""


def owned_name(owner: str, request_id: str) -> str:
    """What the engine knows a request's `x-request-id` by: others may have chosen the same."""
    return f"{owner}{_BETWEEN}{request_id}"


def is_id(text: str) -> bool:
    """Whether a request may have this id, and not such a name."""
    return _BETWEEN not in text
