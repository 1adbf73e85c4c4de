"""The README cannot rot: its flag table, commands, fields and routes are compared with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from millstream import __version__
from millstream.intake.requests.chat import ChatRequest
from millstream.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
START, END = "<!-- flags: checked by tests/test_docs.py -->", "<!-- end of flags -->"


def flag_table() -> str:
    """The table as it must stand in README."""
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{str(field.default).lower()}`"
        if isinstance(field.default, str):
            default = f"`{field.default}`"
        rows.append(f"| `--{name.replace('_', '-')}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_flag_table_is_the_settings() -> None:
    found = README.split(START)[1].split(END)[0].strip()
    assert found == flag_table(), f"README's flag table must be:\n{flag_table()}"


def test_make_targets_in_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"serve", "test", "check", "format", "bench", "help", "demo-model"} <= named & targets
    assert named <= targets


def test_fields_named_in_readme_exist() -> None:
    text = README.split("Chat requests take")[1].split("What can go wrong")[0]
    named = set(re.findall(r"`([a-z_]+)`", text))
    assert len(named) >= 8
    assert named <= set(ChatRequest.model_fields)


def test_python_examples_compile() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(examples) == 4
    for example in examples:
        compile(example, "README.md", "exec")


def test_folders_in_readme_exist() -> None:
    for folder in re.findall(r"^\| `([a-z/]+)` \|", README, re.M):
        assert (ROOT / folder).is_dir(), folder


def test_links_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / link).exists(), f"{file.name}: {link}"


def test_decisions_stand_under_headings_that_the_index_names() -> None:
    index, *sections = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").split("\n## ")
    named = re.findall(r"^- \[(.+)\]\(#(.+)\)$", index, re.M)
    assert [name for name, _ in named] == [section.split("\n")[0] for section in sections]
    for name, anchor in named:
        assert anchor == re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-")
    assert "**" not in index, "a decision above the headings"
    assert all(section.count("\n\n**") for section in sections), "a heading without decisions"


def test_changelog_has_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_continuous_integration_runs_the_readme_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in script
    assert "```sh\nmake test\n```" in README


def test_pinned_versions_satisfy_the_ranges() -> None:
    """Every direct dependency is pinned, so an install is the same everywhere."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"(?:dependencies|clients|dev) = \[(.*?)\]", pyproject, re.S)
    names = re.findall(r'"([a-zA-Z0-9_-]+)', "".join(lists))
    assert len(names) > 20
    for name in names:
        pinned = re.search(rf"^{name.lower().replace('_', '[-_]')}==", constraints, re.M)
        assert pinned, f"{name} is not pinned"


def test_help_is_fast_and_lists_serve() -> None:
    """Nothing heavy is imported for --help: that keeps it under a second."""
    code = (
        "import sys; from millstream.cli import build_parser; build_parser().format_help();"
        "sys.exit(bool({'torch', 'transformers', 'starlette', 'zmq'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
