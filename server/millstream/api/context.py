"""What the routes share: made once by the composition root, read by everyone."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.answering.runs import Runs
from millstream.generation.context import ModelContext
from millstream.settings import Settings
from millstream.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext(ModelContext):
    """fingerprint: names this build. store: None if nothing is kept. runs: answers being made."""

    settings: Settings
    fingerprint: str
    store: Store | None = None
    runs: Runs = field(default_factory=Runs)
