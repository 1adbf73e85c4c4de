"""Models without a chat template, and templates from a file, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .harness import RunningServer
from .models import make_endless_model
from .warm import TRIAL_SECONDS

NULL_ONLY = """\
{% for m in messages %}{% if m.content is none %}{% for c in m.tool_calls %}
<call>{{ c.function.name + ' ' + c.function.arguments }}
{% endfor %}{% else %}{{ m.role + ': ' + m.content }}
{% endif %}{% endfor %}
"""
ARGUMENTS = '{"city": "Tromsø", "days": 2}'
CUT = '{"contents": "once upon a ti'


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose folder brings no chat template."""
    folder = make_endless_model(tmp_path_factory.mktemp("bare") / "model")
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture(scope="module")
def bare_server(bare_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    log = tmp_path_factory.mktemp("bare-server") / "server.log"
    server = RunningServer(
        ["--model-id", str(bare_model), "--kv-cache-memory", "64MiB"], log, is_warm=True
    )
    yield server
    server.stop()


def history(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function"}
    call["function"] = {"name": "get_weather", "arguments": arguments}
    return [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "cold", "tool_call_id": "call_1"},
    ]


def prompt_of(server: RunningServer, messages: list[dict[str, Any]]) -> str:
    """What the model reads for a conversation."""
    shown = httpx.post(f"{server.url}/tokenize", json={"messages": messages}, timeout=60)
    assert shown.status_code == 200, shown.text
    tokens = {"tokens": shown.json()["tokens"]}
    text: str = httpx.post(f"{server.url}/detokenize", json=tokens).json()["prompt"]
    return text


def test_a_model_without_a_template_completes_text_but_does_not_chat(
    bare_server: RunningServer,
) -> None:
    done = httpx.post(
        f"{bare_server.url}/v1/completions",
        json={"prompt": "Count", "max_tokens": 4, "ignore_eos": True},
        timeout=60,
    )
    assert done.status_code == 200, done.text
    assert done.json()["usage"]["completion_tokens"] == 4
    tool = {"type": "function", "function": {"name": "f"}}
    for fields in ({}, {"stream": True}, {"tools": [tool]}, {"reasoning_effort": "low"}):
        refused = bare_server.chat(**fields)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "messages")
        assert "no chat template" in error["message"]
        assert "--chat-template" in error["message"]
    assert "/v1/chat/completions needs --chat-template" in bare_server.log()


def test_a_template_from_a_file(bare_model: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(NULL_ONLY, encoding="utf-8")
    flags = ["--model-id", str(bare_model), "--kv-cache-memory", "64MiB"]
    flags += ["--chat-template", str(template)]
    server = RunningServer(flags, tmp_path / "server.log", is_warm=True)
    try:
        assert server.chat(max_tokens=2).status_code == 200
        text = prompt_of(server, history(ARGUMENTS))
        assert f"user: Weather?\n<call>get_weather {ARGUMENTS}\ntool: cold" in text
        assert f"<call>get_weather {CUT}\n" in prompt_of(server, history(CUT))
        answered = server.chat(messages=history(CUT), max_tokens=2)
        assert answered.status_code == 200, answered.text
        refused = server.chat(messages=history('{"a": "\\ud83d"}'))
        assert refused.status_code == 400
        path = "messages[1].tool_calls[0].function.arguments"
        assert refused.json()["error"]["param"] == path
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("{% for m in messages %}", "syntax error"),
        ("{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, "does not come to an end"),
    ],
)
def test_a_template_that_cannot_be_used_ends_the_start_with_one_line(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.jinja"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    log, variables = tmp_path / "server.log", {TRIAL_SECONDS: "1"}
    server = RunningServer(
        ["--chat-template", str(path)], log, variables=variables, is_awaited=False, is_warm=True
    )
    try:
        assert server.wait_exit() == 1
    finally:
        server.kill()
    assert reason in server.log().splitlines()[-1]
    assert "Traceback" not in server.log()
