"""The folder of what is compiled or measured once on a machine, for the starts that follow."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder of one kind of such things, which need not exist: below torch's for extensions if
    that is set, else below the user's cache."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR") or os.environ.get("XDG_CACHE_HOME")
    return Path(chosen or Path.home() / ".cache") / "millstream" / name
