"""What `docker build` sends to the builder: the files that .dockerignore leaves.

Its rules are those of Docker's documentation of build contexts: a pattern is one of Go's
filepath.Match, with `**` for any number of folders; it also covers what is in a folder of that
name; the last pattern that covers a file decides, and `!` takes the file back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple


class Rule(NamedTuple):
    """A line of the file. is_left_out: what becomes of the paths that it covers."""

    text: str
    covers: re.Pattern[str]
    is_left_out: bool


def sent_files(root: Path) -> list[str]:
    """Paths below `root`, with slashes."""
    rules = _rules((root / ".dockerignore").read_text(encoding="utf-8"))
    sent = []
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        # As the builder does: what is left out is not looked into, unless something takes it back.
        folders[:] = [f for f in folders if _may_hold_files(rules, (place / f).as_posix())]
        sent += [(place / f).as_posix() for f in files if _is_sent(rules, (place / f).as_posix())]
    return sorted(sent)


def _rules(text: str) -> list[Rule]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    texts = [line.removeprefix("!").strip("/") for line in lines]
    return [
        Rule(text, _expression(text), line[0] != "!")
        for text, line in zip(texts, lines, strict=True)
    ]


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meaning = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(meaning.get(part, re.escape(part)) for part in parts)
    return re.compile(f"{text}(/.*)?")


def _is_sent(rules: list[Rule], path: str) -> bool:
    covering = [rule for rule in rules if rule.covers.fullmatch(path)]
    return not covering or not covering[-1].is_left_out


def _may_hold_files(rules: list[Rule], folder: str) -> bool:
    taken_back = [rule.text for rule in rules if not rule.is_left_out]
    return _is_sent(rules, folder) or any(text.startswith(f"{folder}/") for text in taken_back)
