"""Traces and JSON lines of a real server, as a collector and a log shipper get them."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from millstream.errors import StartupError
from millstream.tracing.tracer import Tracer
from tests.tracing_collector import Collector, attributes, collecting

from .harness import RunningServer, wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEY = "sesame-key"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def told(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> tuple[list[dict[str, Any]], Collector, dict[str, Any]]:
    """The lines of a log, what the collector got, and the one whole answer."""
    log = tmp_path_factory.mktemp("traces") / "server.log"
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB", "--api-key", KEY]
    flags += ["--log-format", "json", "--otlp-traces-endpoint", collector.url]
    flags += ["--otlp-service-name", "chat", "--served-model-name", "endless", "--store", "off"]
    server = RunningServer(flags, log, is_awaited=False, is_warm=True)
    try:
        url = wait_ready(server)
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "whole"}
        headers["authorization"] = f"Bearer {KEY}"
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            answer = http.post("/v1/chat/completions", json=body | {"n": 2}).json()
            http.post("/v1/chat/completions", json=body | {"n": 0})
            http.get("/health")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    finally:
        server.kill()
    return [json.loads(line) for line in server.log().splitlines()], collector, answer


def wait_ready(server: RunningServer) -> str:
    """Where it listens, as its log says."""

    def ready() -> list[dict[str, Any]]:
        lines = server.log().splitlines(keepends=True)
        said = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in said if "url" in line]

    wait_until(lambda: bool(ready()), "it is ready", seconds=120)
    url: str = ready()[0]["url"]
    return url


def test_every_line_is_an_object(told: tuple[list[dict[str, Any]], Any, Any]) -> None:
    for line in told[0]:
        assert {"timestamp", "level", "logger", "message"} <= line.keys()
        assert line["timestamp"].endswith("Z")


def test_the_line_of_a_request_has_numbers(told: tuple[list[dict[str, Any]], Any, Any]) -> None:
    lines, _, answer = told
    (line,) = [each for each in lines if each.get("completion") == answer["id"]]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["logger"], line["id"]) == ("millstream.requests", "whole")
    assert line["prompt"] == answer["usage"]["prompt_tokens"]
    assert line["answer"] == answer["usage"]["completion_tokens"] == 10
    assert line["finish"] == ["length", "length"]
    assert 0 <= line["queue_seconds"] <= line["first_seconds"] <= line["time_seconds"] < 60
    assert len(line["owner"]) == 8
    assert KEY not in json.dumps(lines)
    (refused,) = [each for each in lines if each.get("param") == "n"]
    assert (refused["status"], refused["error"]) == (400, "invalid_value")


def test_spans_are_below_the_client_s(told: tuple[Any, Collector, dict[str, Any]]) -> None:
    _, collector, answer = told
    assert all(each["service.name"] == "chat" for each in collector.resources)
    roots = [span for span in collector.spans if span.parent_span_id.hex() == PARENT]
    assert all(span.trace_id.hex() == TRACE for span in collector.spans)
    whole, refused = roots
    assert whole.name == refused.name == "POST /v1/chat/completions"
    found = attributes(whole)
    assert found["gen_ai.response.id"] == answer["id"]
    assert found["gen_ai.usage.output_tokens"] == 10
    assert found["gen_ai.response.finish_reasons"] == ["length", "length"]
    assert (found["http.route"], found["http.response.status_code"]) == (
        "/v1/chat/completions",
        200,
    )
    assert attributes(refused)["error.type"] == "invalid_value"


def test_each_answer_has_its_phases(told: tuple[Any, Collector, Any]) -> None:
    _, collector, _ = told
    (whole,) = [span for span in collector.spans if "gen_ai.response.id" in attributes(span)]
    below = [span for span in collector.spans if span.parent_span_id == whole.span_id]
    for choice in range(2):
        own = [each for each in below if attributes(each)["millstream.choice"] == choice]
        assert [each.name for each in own] == ["preparation", "queue", "prefill", "decode"]
        times = [
            time for each in own for time in (each.start_time_unix_nano, each.end_time_unix_nano)
        ]
        assert times == sorted(times)
        assert whole.start_time_unix_nano <= times[0]
        assert times[-1] <= whole.end_time_unix_nano


def test_without_opentelemetry_the_start_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartupError, match=r"pip install 'millstream\[otel\]'"):
        Tracer(endpoint="http://localhost:4318", service="s", model="m")
