"""How the shapes of answers are declared: the API document and tests hold answers to them."""

from __future__ import annotations

from pydantic import ConfigDict, with_config

closed = with_config(ConfigDict(extra="forbid", strict=True))
"""For shapes that have no fields but those they name, of exactly these types."""
