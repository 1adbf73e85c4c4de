"""Claude Code as its user runs it: a task that reads and edits a file, over the Messages API.

The model is the demo model with room for Claude Code's own prompt, 6,000 tokens to it. What it says
is scripted (script.py); everything else is Claude Code's and the server's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CLAUDE = Path(__file__).parent / "js" / "node_modules" / ".bin" / "claude"
FLAGS = ("--tools", "Read,Edit,Bash", "--allowedTools", "Read,Edit,Bash")
"""All 24 tools are 40,000 tokens to the demo model, which has no compiled kernels: minutes."""
WRONG, RIGHT = "Violets are bleu\n", "Violets are blue\n"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not CLAUDE.exists(),
    reason="Claude Code is not installed (npm ci in tests/compat/js)",
)


@dataclass(frozen=True)
class Done:
    """What a run of Claude Code reported, event by event."""

    events: list[Any]

    def blocks(self, kind: str) -> list[Any]:
        return [
            block
            for event in self.events
            if event["type"] in ("assistant", "user")
            for block in event["message"]["content"]
            if isinstance(block, dict) and block["type"] == kind
        ]

    @property
    def usages(self) -> list[Any]:
        """Of each answer, once."""
        found = {e["message"]["id"]: e["message"] for e in self.events if e["type"] == "assistant"}
        return [message["usage"] for message in found.values()]

    @property
    def result(self) -> Any:
        return self.events[-1]


class ClaudeCode:
    """The program in a folder of its own, and a home that has nothing."""

    def __init__(self, url: str, folder: Path) -> None:
        self._home = folder / "home"
        self._url = url
        self.work = folder / "work"
        for each in (self._home, self.work):
            each.mkdir()

    def run(self, prompt: str, **variables: str) -> Done:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ANTHROPIC_")}
        environment |= {
            "HOME": str(self._home),
            "ANTHROPIC_BASE_URL": self._url,
            "ANTHROPIC_AUTH_TOKEN": os.environ["OPENAI_API_KEY"],
            "ANTHROPIC_MODEL": "millstream-demo",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            **variables,
        }
        environment = {k: v for k, v in environment.items() if v}
        done = subprocess.run(
            [str(CLAUDE), "-p", prompt, "--output-format", "stream-json", "--verbose", *FLAGS],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert events, done.stderr
        return Done(events)


@pytest.fixture
def claude(long_url: str, tmp_path: Path) -> ClaudeCode:
    return ClaudeCode(long_url, tmp_path)


def test_a_file_is_read_and_corrected(claude: ClaudeCode) -> None:
    note = claude.work / "note.txt"
    note.write_text(WRONG, encoding="utf-8")
    done = claude.run("Correct the spelling in note.txt")
    assert done.result["result"] == "The note is corrected.", done.result
    assert not done.result["is_error"]
    assert note.read_text(encoding="utf-8") == RIGHT
    assert [call["name"] for call in done.blocks("tool_use")] == ["Read", "Edit", "Bash"]
    assert not [result for result in done.blocks("tool_result") if result.get("is_error")]
    assert len(done.blocks("thinking")) == 4
    first, *later = done.usages
    assert len(later) == 3
    prompt = first["input_tokens"] + first["cache_read_input_tokens"]
    assert prompt > 5_000
    for usage in later:  # all but the last answer and what its tool gave
        assert usage["cache_read_input_tokens"] > prompt - 32
        assert usage["input_tokens"] < 500
        prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_a_key_comes_as_anthropics_own(claude: ClaudeCode) -> None:
    key = os.environ["OPENAI_API_KEY"]
    done = claude.run("Greet the crew", ANTHROPIC_AUTH_TOKEN="", ANTHROPIC_API_KEY=key)
    assert done.result["result"] == "Ahoy.", done.result
