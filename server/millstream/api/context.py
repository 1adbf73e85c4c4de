"""What the routes share: made once by the composition root, read by everyone."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.generation.context import ModelContext
from millstream.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext(ModelContext):
    """fingerprint: names this build."""

    settings: Settings
    fingerprint: str
