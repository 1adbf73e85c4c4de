"""What the routes share: made once by the composition root, read by everyone."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_bytes

from millstream.answering.runs import Runs
from millstream.generation.context import ModelContext
from millstream.settings import Settings
from millstream.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext(ModelContext):
    """fingerprint: names this build. session_secret: what cookies are signed with.

    store: None if nothing is kept. runs: answers being made.
    """

    settings: Settings
    fingerprint: str
    session_secret: bytes = field(default_factory=lambda: token_bytes(32), repr=False)
    store: Store | None = None
    runs: Runs = field(default_factory=Runs)
