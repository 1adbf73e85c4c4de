"""A conversation that begins."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from millstream.store.records import StoredConversation


def new_conversation(
    owner: str, *, metadata: Mapping[str, str] | None = None
) -> StoredConversation:
    """One with nothing in it, as it is to be stored."""
    return StoredConversation(
        id=f"conv_{secrets.token_hex(24)}",
        owner=owner,
        created=int(time.time()),
        metadata=dict(metadata or {}),
    )
