"""Limits of time and of waiting prompt tokens, at a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .harness import RunningServer
from .wire import DONE, assert_dual_error, open_stream, text_of


@pytest.fixture(scope="module")
def limited_server(
    fleet: list[RunningServer],
    tmp_path_factory: pytest.TempPathFactory,
    endless_model: Path,
) -> Iterator[RunningServer]:
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    flags += ["--max-concurrent-requests", "1", "--max-queue-size", "8", "--ping-seconds", "0.1"]
    flags += ["--max-queue-seconds", "0.5"]
    log = tmp_path_factory.mktemp("limited") / "server.log"
    server = RunningServer(flags, log, is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


def test_who_waits_too_long_is_told_overloaded(limited_server: RunningServer) -> None:
    with open_stream(limited_server) as running:
        running.next()
        assert_dual_error(limited_server.chat(), status=429, code="overloaded")
        with open_stream(limited_server, "Hello") as waiting:
            (event,) = waiting.rest()
            assert json.loads(event)["error"]["code"] == "overloaded"
            assert json.loads(event)["error_type"] == "overloaded"
        running.next()  # the one that runs goes on


@pytest.mark.server("--max-queue-tokens", "100")
def test_waiting_prompts_are_bounded_by_their_tokens(own_server: RunningServer) -> None:
    with ExitStack() as streams:
        streams.enter_context(own_server.paused_engine())
        streams.enter_context(open_stream(own_server, "day " * 200))
        response = own_server.chat("Hello")
        error = assert_dual_error(response, status=429, code="overloaded")
        assert "prompt tokens" in error["message"]
        assert response.headers["retry-after"]


def test_a_request_has_the_time_it_asked_for(limited_server: RunningServer) -> None:
    response = limited_server.chat(max_tokens=30_000, timeout=0.3)
    assert_dual_error(response, status=504, code="timeout")
    limited_server.wait_idle()
    with open_stream(limited_server, timeout=1.5) as stream:
        *chunks, last = stream.rest()
    assert json.loads(last)["error"]["code"] == "timeout"
    assert text_of(chunks)
    assert DONE not in chunks
    assert limited_server.chat(timeout=60).status_code == 200


@pytest.mark.server("--request-timeout", "0.4")
def test_the_servers_time_limit_holds_for_all(own_server: RunningServer) -> None:
    for fields in ({}, {"timeout": 100}):
        response = own_server.chat(max_tokens=30_000, **fields)
        error = assert_dual_error(response, status=504, code="timeout")
        assert "0.4 s" in error["message"]
