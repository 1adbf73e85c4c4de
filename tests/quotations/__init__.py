"""Programs of other people's documents, quoted, so that tests run what its readers run."""

from __future__ import annotations

import re
from pathlib import Path


def quoted_programs(document: str, language: str) -> list[str]:
    """The programs that a document of this folder has in this language."""
    text = (Path(__file__).parent / f"{document}.txt").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
