"""LiteLLM: its SDK by three providers, and its proxy; its own messages are the history."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.harness import STARTUP_SECONDS

HERE = Path(__file__).parent
BIN = HERE.parents[1] / ".venv-compat" / "litellm" / "bin"
ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
PROXY = "litellm_proxy"
CHATS = ("openai", "hosted_vllm", PROXY)
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
        "cache_control": {"type": "ephemeral"},
    },
}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "words": {"says": ["Repeat after me: one", "Repeat after me: two"]},
    "reasoning": {"says": ["Think aloud about seven", "Repeat after me: two"]},
    "tools": {
        "says": ["Please add 2 and 40", "Repeat after me: two"],
        "result": "42",
        "options": {"tools": [ADD]},
    },
}


class Case(NamedTuple):
    conversation: str
    provider: str
    is_streamed: bool


CASES = [
    *(Case(*case) for case in product(CONVERSATIONS, CHATS, (False, True))),
    *(Case("words", "text-completion-openai", is_streamed) for is_streamed in (False, True)),
]

pytestmark = pytest.mark.skipif(not BIN.is_dir(), reason="no LiteLLM here")


@pytest.fixture(scope="module")
def proxy_url(scripted_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """LiteLLM's proxy in front of the scripted server."""
    folder = tmp_path_factory.mktemp("proxy")
    key = os.environ["OPENAI_API_KEY"]
    target = {
        "model": "hosted_vllm/millstream-demo",
        "api_base": f"{scripted_url}/v1",
        "api_key": key,
    }
    models = {"model_list": [{"model_name": "millstream-demo", "litellm_params": target}]}
    (folder / "config.yaml").write_text(json.dumps(models))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [BIN / "litellm", "--config", folder / "config.yaml"]
    command += ["--host", "127.0.0.1", "--port", port]
    with (folder / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_alive(f"{url}/health/liveliness", proxy)
        yield url
    finally:
        proxy.terminate()
        proxy.wait()


def _wait_alive(url: str, proxy: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and proxy.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("LiteLLM's proxy did not start")


@pytest.fixture(scope="module")
def outcomes(scripted_url: str, proxy_url: str) -> dict[Case, Any]:
    """What came of all conversations, in one run of the client."""
    asked = []
    for case in CASES:
        url = proxy_url if case.provider == PROXY else f"{scripted_url}/v1"
        asked.append(
            {"options": {}, "result": ""}
            | CONVERSATIONS[case.conversation]
            | {"model": f"{case.provider}/millstream-demo", "stream": case.is_streamed}
            | {"api_base": url, "api_key": os.environ["OPENAI_API_KEY"]}
        )
    done = subprocess.run(
        [BIN / "python", HERE / "litellm_client.py"],
        env=os.environ | ENVIRONMENT,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_conversation(case: Case, outcomes: dict[Case, Any]) -> None:
    outcome = outcomes[case]
    assert "error" not in outcome, outcome["error"]
    answers = outcome["answers"]
    said = [answer["content"] or "" for answer in answers]
    if case.provider == "text-completion-openai":
        assert len(said) == 2  # no turns: the model goes on with a text
    elif case.conversation == "words":
        assert said == ["one", "two"]
    elif case.conversation == "reasoning":
        assert said == ["It is a prime.", "two"]
        assert answers[0]["reasoning_content"] == "Seven has no divisors."
        # What makes it a case: LiteLLM sends this back with the next turn.
        extra = answers[0].get("provider_specific_fields") or {}
        assert case.is_streamed or extra.get("reasoning") == "Seven has no divisors."
    else:
        assert said == ["", "The result is 42.", "two"]
        (call,) = answers[0]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"a": 2, "b": 40}
