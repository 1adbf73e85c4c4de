"""The demo model with room for the prompts of coding agents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_DEMO = Path(__file__).parents[2] / "server" / "millstream" / "demo" / "model"


def make_long_demo(folder: Path, *, context: int = 131_072) -> Path:
    """Writes a copy that claims a context of so many tokens. It makes no sense of long prompts."""
    shutil.copytree(_DEMO, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"max_position_embeddings": context}), encoding="utf-8")
    return folder
