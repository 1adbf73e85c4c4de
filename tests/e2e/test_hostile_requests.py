"""Requests that would end, fill or hold up a server that prepared them where it serves others."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from .harness import RunningServer, wait_until
from .models import make_endless_model
from .wire import LONG, messages, open_stream

LOOPING = """\
{% if messages[-1].content == "loop" %}{% for i in range(99999) %}{% for j in range(99999) %}\
{% endfor %}{% endfor %}{% endif %}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Its template never ends for the message "loop"."""
    folder = tmp_path_factory.mktemp("looping")
    model = make_endless_model(folder / "model")
    template = model / "chat_template.jinja"
    template.write_text(LOOPING + template.read_text())
    flags = ["--model-id", str(model), "--kv-cache-memory", "64MiB"]
    server = RunningServer(flags, folder / "server.log", is_warm=True)
    yield server
    server.stop()


def chain(length: int) -> str:
    rules = [f"r{i}: r{i + 1}" for i in range(length)]
    return "\n".join(["start: r0", *rules, f'r{length}: "a"'])


def patterns(*texts: str) -> dict[str, Any]:
    return {"type": "string", "allOf": [{"pattern": text} for text in texts]}


def nested_refs(length: int) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        f"r{i}": {"items": {"$ref": f"#/$defs/r{i + 1}"}, "type": "array"} for i in range(length)
    }
    return {"$ref": "#/$defs/r0", "$defs": arrays | {f"r{length}": {"type": "string"}}}


SLOW = patterns(*(f".*{letter}.{{10}}" for letter in "abcdefghijklmnopqrst"))
HOSTILE: dict[str, dict[str, Any]] = {
    "rules": {"structured_outputs": {"grammar": chain(5000)}},
    "refs": {"structured_outputs": {"json": nested_refs(1000)}},
    "slow": {"structured_outputs": {"json": SLOW}},
    "properties": {
        "structured_outputs": {
            "json": {"type": "object", "properties": {f"p{i}": {} for i in range(2500)}}
        }
    },
    "no rule": {"structured_outputs": {"grammar": "root ::= a"}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_format_that_harms_is_refused_and_harms_nobody(name: str, server: RunningServer) -> None:
    engine, before = server.engine().pid, psutil.Process(server.process.pid).memory_info().rss
    with open_stream(server) as reader, never_silent(server):
        reader.next()
        response = server.chat(**HOSTILE[name])
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"].startswith("structured_outputs.")
        assert json.loads(reader.next())["choices"], "the stream goes on"
    assert server.engine().pid == engine
    assert psutil.Process(server.process.pid).memory_info().rss < before + 100 * 2**20


@contextmanager
def never_silent(server: RunningServer) -> Iterator[None]:
    """Asks /health all the time; fails if an answer took long."""
    is_over = threading.Event()
    times: list[float] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not (times and is_over.wait(0.005)):
                begin = time.perf_counter()
                assert client.get("/health").status_code == 200
                times.append(time.perf_counter() - begin)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    # An encoding that keeps the interpreter takes 2 s; a calm machine answers within 0.05 s.
    assert max(times) < 1.0, sorted(times)[-5:]


WORDS = "The quick brown fox jumps over the lazy dog, 12 times. "


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {"prompt": WORDS * 20_000}, 200),
        ("/tokenize", {"messages": messages(WORDS * 20_000)}, 200),
        ("/detokenize", {"tokens": [99] * 400_000}, 200),
        ("/v1/chat/completions", {"messages": messages(WORDS * 20_000)}, 400),
        ("/v1/completions", {"prompt": [99] * 400_000}, 400),
    ],
    ids=["text", "conversation", "ids", "chat", "completion"],
)
def test_long_texts_hold_up_nobody(
    path: str, body: dict[str, Any], status: int, server: RunningServer
) -> None:
    with never_silent(server):
        response = httpx.post(f"{server.url}{path}", json=body, timeout=120)
        assert response.status_code == status, response.text[:300]


def test_a_template_that_loops_ends_with_its_request(server: RunningServer) -> None:
    for stream in (False, True):
        response = server.chat("loop", timeout=0.2, stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    url = f"{server.url}/v1/chat/completions"
    for _ in range(6):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json={"messages": messages("loop")}, timeout=0.3)
    server.wait_open(0)
    process = psutil.Process(server.process.pid)
    process.cpu_percent()
    assert server.answer()
    assert process.cpu_percent(interval=1.0) < 50, "something still loops"


@pytest.mark.server
def test_two_signals_end_a_server_that_prepares(own_server: RunningServer) -> None:
    """Preparing a format that takes for ever, beside a stream that would take minutes."""

    def ask() -> None:
        try:
            statuses.append(own_server.chat(**HOSTILE["slow"], max_tokens=LONG).status_code)
        except httpx.HTTPError as error:
            statuses.append(repr(error))

    statuses: list[Any] = []
    children = psutil.Process(own_server.process.pid).children(recursive=True)
    with open_stream(own_server) as reader:
        reader.next()
        thread = threading.Thread(target=ask)
        thread.start()
        own_server.wait_open(2)
        own_server.signal(signal.SIGTERM)
        wait_until(lambda: own_server.health()[0] == 503, "drains")
        own_server.signal(signal.SIGTERM)
        assert own_server.wait_exit(seconds=15) == 0
    thread.join()
    assert statuses == [503]
    own_server.assert_gone(children)
