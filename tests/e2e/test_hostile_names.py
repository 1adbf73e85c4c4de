"""Whatever clients call things, nothing of it reaches a path, a header, or a line of the log.

Every place in which a client names something gets every name that could be taken for more than a
name; the server answers each, and its files, its headers and its log are as they were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from .harness import RunningServer
from .wire import messages

MARK = "hostile5"
NAMES = {
    "climbs": f"../../{MARK}",
    "absolute": f"/tmp/{MARK}",
    "url": f"http://127.0.0.1:9/{MARK}",
    "nul": f"{MARK}\0.json",
    "lines": f"{MARK}\r\nX-Evil: 1\r\n\r\n2026-01-01 00:00:00,000 ERROR evil",
    "separators": f"{MARK}\u2028\x85\x1b[2J",
    "markup": f"<script>{MARK}</script>'\"`;--%s%n{{0}}${{x}}",
    "surrogate": f"{MARK}\ud800",
    "long": MARK * 400,
    "empty": "",
}

Place = Callable[[str], tuple[str, str, dict[str, Any] | None]]
"""Makes a request of a name: method, path, body."""


def chat(**fields: Any) -> tuple[str, str, dict[str, Any]]:
    body = {"messages": messages("Hi"), "max_tokens": 1} | fields
    return "POST", "/v1/chat/completions", body


def respond(**fields: Any) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/v1/responses", {"input": "Hi", "max_output_tokens": 16} | fields


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def schema(name: str, **parts: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": parts}}


def path(template: str, method: str = "GET", body: Any = None) -> Place:
    """A name within a path or a query, wherever the template has braces."""

    def make(name: str) -> tuple[str, str, Any]:
        return method, template.replace("{}", quote(name.encode("utf-8", "replace"))), body

    return make


BODIES: dict[str, Place] = {
    "model": lambda name: chat(model=name),
    "user": lambda name: chat(user=name),
    "safety identifier": lambda name: chat(safety_identifier=name),
    "prompt cache key": lambda name: chat(prompt_cache_key=name),
    "cache salt": lambda name: chat(cache_salt=name),
    "metadata": lambda name: chat(metadata={name[:60]: name[:500]}),
    "stop": lambda name: chat(stop=[name]),
    "message name": lambda name: chat(messages=[{**messages("Hi")[0], "name": name}]),
    "content": lambda name: chat(messages=messages(name)),
    "tool": lambda name: chat(tools=[tool(name)]),
    "property": lambda name: chat(tools=[tool("f", properties={name: {"type": "string"}})]),
    "keyword": lambda name: chat(response_format=schema("s", type="object", **{name or "x": 1})),
    "pattern": lambda name: chat(response_format=schema("s", type="string", pattern=name)),
    "reference": lambda name: chat(response_format=schema("s", **{"$ref": name})),
    "schema": lambda name: chat(response_format=schema(name, type="string")),
    "template variable": lambda name: chat(chat_template_kwargs={name: name}),
    "unknown field": lambda name: chat(**{name or "x": 1}),
    "response metadata": lambda name: respond(metadata={name[:60]: name[:500]}),
    "previous response": lambda name: respond(previous_response_id=name),
    "conversation": lambda name: respond(conversation=name),
    "item": lambda name: respond(input=[{"type": "item_reference", "id": name}]),
    "call id": lambda name: respond(
        input=[{"type": "function_call_output", "call_id": name, "output": name}]
    ),
    "conversation metadata": lambda name: ("POST", "/v1/conversations", {"metadata": {"k": name}}),
    "chat title": lambda name: ("POST", "/v1/chats", {"title": name}),
    "imported chat": lambda name: ("POST", "/v1/chats/import", {"id": name, "title": name}),
    "messages user": lambda name: (
        "POST",
        "/v1/messages",
        {"model": name, "max_tokens": 1, "messages": messages("Hi"), "metadata": {"user_id": name}},
    ),
    "adapter": lambda name: ("POST", "/generate", {"inputs": "Hi", "parameters": {"a": name}}),
}
PATHS: dict[str, Place] = {
    "models": path("/v1/models/{}"),
    "page": path("/page/{}"),
    "response": path("/v1/responses/{}"),
    "response end": path("/v1/responses/{}", "DELETE"),
    "response items": path("/v1/responses/{}/input_items?after={}"),
    "cancelled": path("/v1/chat/completions/{}/cancel", "POST", {}),
    "kept conversation": path("/v1/conversations/{}"),
    "chat": path("/v1/chats/{}"),
    "chat export": path("/v1/chats/{}/export"),
    "chats": path("/v1/chats?q={}&after={}"),
    "nothing": path("/{}"),
}
_OWN_FILE = re.compile(r"server\.log|store/s\.db(-[\w./-]+)?|cache/[\w./-]+")
_OWN_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ [a-z_.]+: |  |$")

HEADERS = [
    *("x-request-id", "traceparent", "tracestate", "last-event-id", "cookie", "idempotency-key"),
    *("x-resumable", "user-agent", "referer", "x-forwarded-for", "x-forwarded-host", "forwarded"),
    *("authorization", "anthropic-version", "accept-encoding", "if-none-match", "range"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of a server's files are."""
    return tmp_path_factory.mktemp("hostile-names")


@pytest.fixture(scope="module")
def server(fleet: list[RunningServer], home: Path, endless_model: Path) -> Iterator[RunningServer]:
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    flags += ["--store", str(home / "store" / "s.db"), "--cache-folder", str(home / "cache")]
    flags += ["--log-level", "debug"]
    server = RunningServer(flags, home / "server.log", is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


def check(response: httpx.Response) -> None:
    """That the server has answered, and that no header has anything of a name."""
    assert response.status_code < 500, response.text
    assert "x-evil" not in response.headers
    for name, value in response.headers.items():
        assert MARK not in value or name == "x-request-id", f"{name}: {value}"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response.headers["x-request-id"])


def check_files_and_log(server: RunningServer, home: Path) -> None:
    """That there are no files but the server's own, and no lines that it has not begun."""
    files = {str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()}
    assert [file for file in files if not _OWN_FILE.fullmatch(file)] == []
    folders = (home, Path("/tmp"), Path.cwd(), Path.cwd().parent)
    assert [file for folder in folders for file in folder.glob(f"*{MARK}*")] == []
    lines = server.log().splitlines()
    assert [line for line in lines if not _OWN_LINE.match(line)] == []
    server.assert_clean_log()


@pytest.mark.parametrize("kind", NAMES)
def test_names_in_bodies_and_paths(server: RunningServer, home: Path, kind: str) -> None:
    name = NAMES[kind]
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for place, make in (BODIES | PATHS).items():
            method, target, body = make(name)
            if len(target) > 60_000:
                continue
            content = None if body is None else json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            try:
                check(http.request(method, target, content=content, headers=headers))
            except (AssertionError, httpx.TimeoutException) as error:
                raise AssertionError(f"{place}: {error}") from error
    check_files_and_log(server, home)


def test_names_in_headers(server: RunningServer, home: Path) -> None:
    body = chat()[2]
    names = (f"../../{MARK}", f"{MARK}%0d%0aX-Evil: 1", MARK * 500, f"{MARK} status=200 id=1")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for header in HEADERS:
            for name in names:
                headers = {header: name}
                check(http.post("/v1/chat/completions", json=body, headers=headers))
    check_files_and_log(server, home)
    assert " status=200 id=1" not in server.log()
