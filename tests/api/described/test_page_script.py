"""What the scripts of /docs make of answers and requests, run by node without a page."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "!%+"}], "max_tokens": 9}

_PAGE = Path(__file__).parents[3] / "clients" / "page"
_ESBUILD = _PAGE / "node_modules" / ".bin" / "esbuild"
_MODULES = ("answer_text", "command")
_STUBS = """
const vm = require("node:vm");
const [script, tests, given] = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const page = vm.createContext({ URL, given });
vm.runInContext(script, page);
process.stdout.write(JSON.stringify(vm.runInContext(`with (docs) { ${tests} }`, page)));
"""


@cache
def script() -> str:
    """The parts of the page that need no browser, as one script with the name `docs`."""
    if not _ESBUILD.exists() or shutil.which("node") is None:
        pytest.skip("the pages' packages are not installed: make page")
    source = "".join(f"export * from './src/docs/{name}';" for name in _MODULES)
    command = [str(_ESBUILD), "--bundle", "--format=iife", "--global-name=docs"]
    return done(command, source, cwd=_PAGE)


def run(tests: str, given: Any = None) -> Any:
    """The value of a JavaScript expression that uses the page's functions and `given`."""
    return json.loads(done(["node", "-e", _STUBS], json.dumps([script(), tests, given])))


def done(command: list[str], text: str, *, cwd: Path | None = None) -> str:
    """What a program prints that reads a text."""
    ended = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=cwd
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, BODY), ("/v1/completions", {"prompt": "!%+", "max_tokens": 9})],
)
@pytest.mark.parametrize("count", [1, 2])
async def test_streams_are_joined_however_they_are_cut(
    path: str, body: dict[str, Any], count: int, serve: Serve
) -> None:
    client, body = serve(), body | {"n": count, "seed": 1}
    whole = (await client.post(path, json=body)).json()
    stream = (await client.post(path, json=body | {"stream": True})).text
    texts = [c["message"]["content"] if path == CHAT else c["text"] for c in whole["choices"]]
    expected = texts[0]
    if count > 1:
        expected = "\n\n".join(f"Answer {n}\n\n{text}" for n, text in enumerate(texts, 1))
    assert run("new AnswerText().take(given)", whole) == expected
    for size in (1, 7, 10_000):
        parts = [stream[start : start + size] for start in range(0, len(stream), size)]
        tests = "((a) => given.map((part) => a.read(part)).pop())(new AnswerText())"
        assert run(tests, parts) == expected


def test_calls_reasoning_and_failures_are_told() -> None:
    call = {"index": 0, "function": {"name": "look", "arguments": ""}}
    deltas: list[dict[str, Any]] = [
        {"content": "", "reasoning_content": "Hm", "reasoning": "Hm"},
        {"content": "Wait."},
        {"content": "", "tool_calls": [call]},
        {"content": "", "tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"content": "", "tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    events: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"error": {"message": "it broke"}})
    text = "".join(f": ping\n\ndata: {json.dumps(event)}\n\n" for event in events)
    said = run("new AnswerText().read(given)", text)
    assert said == '(thinks: Hm)\n\nWait.\n\ncalls look({"a":1})\n\nError: it broke'


def test_addresses_and_commands() -> None:
    address = run('addressBelow("http://proxy/llm/", "/v1/models/{model}")')
    assert address == "http://proxy/llm/v1/models/{model}"
    body = json.dumps({"content": "it's"})
    sent = {"address": "http://a/b", "method": "post", "body": body, "hasKey": True}
    command = run("asCommand(given)", sent)
    assert shlex.split(command.replace("\\\n", "")) == [
        *("curl", "-N", "http://a/b", "-H", "Authorization: Bearer KEY"),
        *("-H", "Content-Type: application/json", "-d", body),
    ]
    plain = {"address": "http://a/b", "method": "get", "hasKey": False}
    assert run("asCommand(given)", plain) == "curl -N 'http://a/b'"
    plain["method"] = "delete"
    assert run("asCommand(given)", plain) == "curl -N -X DELETE 'http://a/b'"


def test_responses_are_joined_like_other_answers() -> None:
    item = {"type": "function_call", "name": "look", "arguments": "{}"}
    events: list[Any] = [
        {"type": "response.reasoning_text.delta", "delta": "Hm"},
        {"type": "response.output_text.delta", "delta": "Wai"},
        {"type": "response.output_text.delta", "delta": "t."},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"output": [item]}},
    ]
    text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
    said = "(thinks: Hm)\n\nWait.\n\ncalls look({})"
    assert run("new AnswerText().read(given)", text) == said
    parts: list[Any] = [
        {"type": "reasoning", "content": [{"text": "Hm"}]},
        {"type": "message", "content": [{"text": "Wait."}]},
        item,
    ]
    assert run("new AnswerText().take(given)", {"error": None, "output": parts}) == said
