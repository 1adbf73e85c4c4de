"""What the script of /docs makes of answers, run by node with a page that is not there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from importlib import resources
from typing import Any

import pytest

from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

PAGE = resources.files("millstream.api.described").joinpath("page.html").read_text(encoding="utf-8")
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "!%+"}], "max_tokens": 9}

_NODE = shutil.which("node")
_STUBS = """
const vm = require("node:vm");
const [script, tests, given] = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const element = () => ({ value: "", append() {}, replaceChildren() {} });
const page = vm.createContext({
  document: { getElementById: element, createElement: element, baseURI: "http://proxy/llm/docs" },
  fetch: () => Promise.reject(new Error("no server")), addEventListener() {}, URL, given,
});
vm.runInContext(script, page);
process.stdout.write(JSON.stringify(vm.runInContext(tests, page)));
"""


def run(tests: str, given: Any = None) -> Any:
    """The value of a JavaScript expression that uses the page's functions and `given`."""
    if _NODE is None:
        pytest.skip("there is no node")
    found = re.search(r"<script>(.*?)</script>", PAGE, re.S)
    assert found is not None
    done = subprocess.run(
        [_NODE, "-e", _STUBS],
        input=json.dumps([found[1], tests, given]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
    assert run("new Answer().take(given)", whole) == expected
    for size in (1, 7, 10_000):
        parts = [stream[start : start + size] for start in range(0, len(stream), size)]
        tests = "((a) => given.map((part) => a.read(part)).pop())(new Answer())"
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
    said = run("new Answer().read(given)", text)
    assert said == '(thinks: Hm)\n\nWait.\n\ncalls look({"a":1})\n\nError: it broke'


def test_addresses_and_commands() -> None:
    address = run('addressOf("/v1/models/{model}")')
    assert address == "http://proxy/llm/v1/models/{model}"
    body = json.dumps({"content": "it's"})
    command = run('asCommand("http://a/b", "post", given, true)', body)
    assert shlex.split(command.replace("\\\n", "")) == [
        *("curl", "-N", "http://a/b", "-H", "Authorization: Bearer KEY"),
        *("-H", "Content-Type: application/json", "-d", body),
    ]
    assert run('asCommand("http://a/b", "get", undefined, false)') == "curl -N 'http://a/b'"
