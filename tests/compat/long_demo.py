"""The demo model for programs that are to be heard in full: with its template shortening nothing,
and with room for the prompts of coding agents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_SHORTENS = "= 200, 24, 1200 %}"
_TEMPLATE = "chat_template.jinja"
_DEMO = Path(__file__).parents[2] / "server" / "millstream" / "demo" / "model"


def write_whole_template(file: Path) -> None:
    """Writes the demo model's chat template without its limits."""
    source = (_DEMO / _TEMPLATE).read_text(encoding="utf-8")
    assert _SHORTENS in source
    file.write_text(source.replace(_SHORTENS, "= 10**9, 0, 10**9 %}"), encoding="utf-8")


def make_long_demo(folder: Path, *, context: int = 131_072) -> Path:
    """Writes a copy that claims a context of so many tokens. It makes no sense of long prompts."""
    shutil.copytree(_DEMO, folder)
    write_whole_template(folder / _TEMPLATE)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"max_position_embeddings": context}), encoding="utf-8")
    return folder
