"""docs/reading.md cannot rot: its files are all there are, and its sittings as long as it says."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "server" / "millstream"
GUIDE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
START, END = "<!-- files: checked by tests/test_reading.py -->", "<!-- end of files -->"

LONGEST_SITTING, LONGEST_SPINE = 900, 5_600
ODD_BEGINNINGS = re.compile(r"(Of|And|As|The same|Like|See|By|Where|Nothing|None|That)\b")


def named_files(text: str) -> list[str]:
    """The files that a part of the guide names, as paths in the package.

    "In `folder/`:" or "In the package:" stands before the names of a folder's files.
    """
    found, folder = [], ""
    for match in re.finditer(r"In the package:|In\s+`([\w/]+/)`:|`([\w/]+\.(?:py|h|cpp))`", text):
        if match[2] is None:
            folder = match[1] or ""
        elif "/" not in match[2]:
            found.append(folder + match[2])
    return found


def lines_of_logic(path: Path) -> int:
    """Lines without blank ones, comments, docstrings and imports."""
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            is_text and isinstance(node.value.value, str)
        ):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(
        1
        for number, line in lines
        if line.strip() and not line.strip().startswith("#") and number not in left_out
    )


def sittings() -> list[tuple[str, int, list[str]]]:
    """Title, stated lines and files of each."""
    spine = GUIDE.split(START)[1].split("## Wings")[0]
    titled = re.findall(r"### (.+?) \((\d+) lines\)\n(.*?)(?=\n### |\Z)", spine, re.S)
    # What is run and broken is named, too, but not read.
    return [(title, int(n), named_files(text.split("\nRun ")[0])) for title, n, text in titled]


def test_every_file_is_named_once() -> None:
    counts = Counter(named_files(re.sub(r"\nRun .*", "", GUIDE.split(START)[1].split(END)[0])))
    files = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.suffix in (".py", ".h", ".cpp") and path.name != "__init__.py"
    }
    assert set(counts) == files, sorted(set(counts) ^ files)
    assert set(counts.values()) == {1}, [name for name, count in counts.items() if count > 1]


@pytest.mark.parametrize("number", range(8))
def test_a_sitting_is_as_long_as_the_guide_says(number: int) -> None:
    title, stated, files = sittings()[number]
    actual = sum(lines_of_logic(SOURCE / name) for name in files)
    assert abs(actual - stated) <= 0.05 * actual, f"{title} has {actual} lines"
    assert actual < LONGEST_SITTING, title


def test_the_spine_reads_in_a_day() -> None:
    assert len(sittings()) == 8
    total = sum(lines_of_logic(SOURCE / name) for _, _, files in sittings() for name in files)
    assert total < LONGEST_SPINE
    for text in (GUIDE, (ROOT / "README.md").read_text(encoding="utf-8")):
        stated = re.search(r"spine.{0,60}?(\d,\d\d\d) lines", text, re.S)
        assert stated is not None
        assert abs(int(stated[1].replace(",", "")) - total) <= 0.05 * total, total


def test_what_is_run_in_a_sitting_is_there() -> None:
    named = re.findall(r"tests/[\w/]+(?:\.py)?", GUIDE)
    assert len(named) >= 9
    assert all((ROOT / name).exists() for name in named)


def test_docstrings_have_subjects() -> None:
    """They are read by who has not seen what they are about."""
    odd = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if ODD_BEGINNINGS.match(docstring):
                    odd.append(f"{path.relative_to(SOURCE)}: {docstring.splitlines()[0]}")
    assert not odd, "\n".join(odd)
