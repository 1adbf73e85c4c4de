"""The `llm` command line, with the server as one of its models (extra-openai-models.yaml)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

_MODELS = """
- model_id: mill
  model_name: millstream-demo
  api_base: "{url}/v1"
  api_key_name: mill
  can_stream: true
  supports_tools: true
  supports_schema: true
- model_id: mill-completion
  model_name: millstream-demo
  api_base: "{url}/v1"
  api_key_name: mill
  completion: true
"""


@pytest.fixture
def llm(scripted_url: str, tmp_path: Path) -> Run:
    """Runs `llm` with a folder of its own; returns when it is done."""
    (tmp_path / "extra-openai-models.yaml").write_text(_MODELS.format(url=scripted_url))
    keys = {"mill": os.environ["OPENAI_API_KEY"]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    command = Path(sys.executable).with_name("llm")

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [command, *arguments],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def test_stream(llm: Run) -> None:
    assert llm("-m", "mill", "Count to 5").stdout == "1\n2\n3\n4\n5\n"


def test_whole(llm: Run) -> None:
    done = llm("-m", "mill", "--no-stream", "-s", "Be brief.", "Repeat after me: sea")
    assert done.stdout == "sea\n"


def test_usage_and_options(llm: Run) -> None:
    options = ["-o", "temperature", "0.5", "-o", "max_tokens", "3", "-o", "seed", "1"]
    done = llm("-m", "mill", "-u", *options, "Count to 9")
    assert "3 output" in done.stderr


def test_conversation_goes_on(llm: Run) -> None:
    llm("-m", "mill", "My name is Anna.")
    assert "Anna" in llm("-m", "mill", "-c", "What is my name?").stdout


def test_tools(llm: Run) -> None:
    code = "def add(a: int, b: int) -> int:\n    'Adds two numbers.'\n    return a + b\n"
    done = llm("-m", "mill", "--functions", code, "Please add 2 and 40.")
    assert done.stdout == "The result is 42.\n"


def test_schema(llm: Run) -> None:
    done = llm("-m", "mill", "--schema", "name, age int", "Extract: Dora is 36.")
    assert json.loads(done.stdout) == {"name": "Dora", "age": 36}


def test_schema_of_many(llm: Run) -> None:
    done = llm("-m", "mill", "--schema-multi", "name, age int", "Extract two: Dora is 36, Emil 7.")
    assert [item["age"] for item in json.loads(done.stdout)["items"]] == [36, 7]


def test_completion_model(llm: Run) -> None:
    assert llm("-m", "mill-completion", "-o", "max_tokens", "5", "1\n2\n3\n").stdout


def test_errors(llm: Run) -> None:
    done = llm("-m", "mill", "-o", "max_tokens", "5", "word " * 5000, check=False)
    assert done.returncode == 1
    assert "tokens" in done.stderr
