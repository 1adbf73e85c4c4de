"""Codex CLI as its user runs it: a task that reads and edits a file, over the Responses API.

The model is the demo model with room for Codex's own prompt, which is 40,000 tokens to it. What it
says is scripted (script.py); everything else is Codex's and the server's own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CODEX = Path(__file__).parent / "js" / "node_modules" / ".bin" / "codex"
CONFIGURATION = """
model = "{model}"
model_provider = "millstream"
model_context_window = 131072

[model_providers.millstream]
name = "Millstream"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "MILLSTREAM_KEY"
"""
KNOWN_MODEL = "gpt-5.5"
"""A name for which Codex offers its tool that edits files, apply_patch."""
TURN_SECONDS = 240.0
WRONG, RIGHT = "Roses are rad\n", "Roses are red\n"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not CODEX.exists(),
    reason="Codex CLI is not installed (npm ci in tests/compat/js)",
)


@dataclass(frozen=True)
class Done:
    """What a run of Codex reported, event by event."""

    events: list[Any]

    def items(self, kind: str) -> list[Any]:
        return [
            event["item"]
            for event in self.events
            if event["type"] == "item.completed" and event["item"]["type"] == kind
        ]

    @property
    def words(self) -> str:
        return str(self.items("agent_message")[-1]["text"])

    @property
    def usage(self) -> Any:
        return self.events[-1]["usage"]


class Codex:
    """The program in a folder of its own, and a home that has only its configuration."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._home = folder / "home"
        self.work = folder / "work"
        for each in (self._home, self.work):
            each.mkdir()

    def run(self, *arguments: str, model: str = "millstream-demo") -> Done:
        configuration = CONFIGURATION.format(model=model, url=self._url)
        (self._home / "config.toml").write_text(configuration, encoding="utf-8")
        variables = {"CODEX_HOME": str(self._home), "MILLSTREAM_KEY": os.environ["OPENAI_API_KEY"]}
        with subprocess.Popen(
            [str(CODEX), "exec", "--json", "--skip-git-repo-check", *arguments],
            cwd=self.work,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as codex:
            try:
                said, complaints = codex.communicate(timeout=TURN_SECONDS)
            except BaseException:
                # The command is a script: the program itself is its child.
                os.killpg(codex.pid, signal.SIGKILL)
                raise
        events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert events, complaints
        assert events[-1]["type"] == "turn.completed", (events, complaints)
        return Done(events)


# There is no sandbox in a container; what the script runs is `cat` and a patch.
FREELY = "--dangerously-bypass-approvals-and-sandbox"


@pytest.fixture
def codex(long_url: str, tmp_path: Path) -> Codex:
    return Codex(long_url, tmp_path)


def test_a_file_is_read_and_mended(codex: Codex) -> None:
    poem = codex.work / "poem.txt"
    poem.write_text(WRONG, encoding="utf-8")
    done = codex.run(FREELY, "Mend the typo in poem.txt", model=KNOWN_MODEL)
    assert done.words == "The poem is mended."
    assert poem.read_text(encoding="utf-8") == RIGHT
    (read,) = done.items("command_execution")
    assert (read["aggregated_output"], read["exit_code"]) == (WRONG, 0)
    (change,) = done.items("file_change")
    assert [each["kind"] for each in change["changes"]] == ["update"]


def test_later_requests_find_the_prompt_of_the_first_in_the_cache(codex: Codex) -> None:
    (codex.work / "poem.txt").write_text(WRONG, encoding="utf-8")
    usage = codex.run(FREELY, "Show me poem.txt").usage
    assert usage["input_tokens"] > 2 * usage["cached_input_tokens"] * 0.9 > 20_000
    assert usage["output_tokens"] > 0


def test_a_conversation_is_taken_up_again(codex: Codex) -> None:
    first = codex.run(FREELY, "Repeat after me: sea")
    again = codex.run(FREELY, "resume", "--last", "Repeat after me: shell")
    assert (first.words, again.words) == ("sea", "shell")
    assert again.usage["cached_input_tokens"] > 0.9 * first.usage["input_tokens"]


def test_a_tool_of_a_namespace_is_called_by_both_its_names(codex: Codex) -> None:
    assert codex.run(FREELY, "Close the agent Ann").words == "There was no such agent."


def test_a_call_of_an_unknown_tool_goes_back_to_the_model(codex: Codex) -> None:
    assert codex.run(FREELY, "Use a tool that is not there").words == "It is not there."


def test_an_answer_has_the_schema_that_was_asked_for(codex: Codex) -> None:
    schema = {
        "type": "object",
        "properties": {"first": {"type": "string"}, "mended": {"type": "boolean"}},
        "required": ["first", "mended"],
        "additionalProperties": False,
    }
    (codex.work / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    (codex.work / "poem.txt").write_text(WRONG, encoding="utf-8")
    done = codex.run(FREELY, "--output-schema", "schema.json", "Report on poem.txt")
    assert json.loads(done.words) == {"first": "Roses are rad", "mended": False}
    assert done.items("command_execution")
