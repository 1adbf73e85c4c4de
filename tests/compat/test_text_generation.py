"""TGI's own Python client, `text-generation`, against the routes that it knows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-compat" / "tgi" / "bin" / "python"
PROMPT = "The capital of France is"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="no text-generation here")


@pytest.fixture(scope="module")
def outcomes(demo_url: str) -> dict[str, Any]:
    """What came of every call, in one run of the client."""
    done = subprocess.run(
        [PYTHON, HERE / "text_generation_client.py", demo_url],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def completed(demo_url: str) -> Any:
    """The same text, as /v1/completions has it."""
    asked = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "logprobs": 1}
    answer = httpx.post(f"{demo_url}/v1/completions", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


@pytest.mark.parametrize("call", ["whole", "async_whole"])
def test_a_whole_text(outcomes: dict[str, Any], completed: Any, call: str) -> None:
    outcome = outcomes[call]
    assert outcome["text"] == completed["text"]
    assert outcome["num_generated"] == len(outcome["tokens"]) == 8
    assert "".join(outcome["tokens"]) == completed["text"]
    assert outcome["finish_reason"] == "length"
    assert outcome["logprobs"] == pytest.approx(completed["logprobs"]["token_logprobs"], abs=1e-4)


@pytest.mark.parametrize("call", ["stream", "async_stream"])
def test_a_streamed_text(outcomes: dict[str, Any], completed: Any, call: str) -> None:
    outcome = outcomes[call]
    assert "".join(outcome["tokens"]) == outcome["text"] == completed["text"]
    assert (outcome["num_generated"], outcome["finish_reason"]) == (8, "length")
    assert outcome["early_details"] == []


def test_details(outcomes: dict[str, Any]) -> None:
    outcome = outcomes["details"]
    assert "".join(outcome["prefill"]).endswith(PROMPT)
    assert outcome["num_top"] == [2] * 8


def test_a_stop_sequence_is_no_part_of_the_text(outcomes: dict[str, Any], completed: Any) -> None:
    outcome = outcomes["stop"]
    assert outcome["finish_reason"] == "stop_sequence"
    assert outcome["text"] == completed["text"].partition("is")[0]


def test_the_prompt_comes_back_where_it_is_wanted(outcomes: dict[str, Any], completed: Any) -> None:
    assert outcomes["full"]["text"] == PROMPT + completed["text"]


def test_the_best_of_several(outcomes: dict[str, Any]) -> None:
    assert len(outcomes["best_of"]["best_of"]) == 2


def test_a_chat(outcomes: dict[str, Any]) -> None:
    assert outcomes["chat"] == "This is a test."


def test_errors_have_the_classes_of_the_client(outcomes: dict[str, Any]) -> None:
    assert outcomes["too_long"]["class"] == "ValidationError"
    assert "tokens" in outcomes["too_long"]["message"]
