"""Orderly and other endings: SIGTERM, SIGINT, the grace time, and processes killed outright."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from .harness import EXIT_SECONDS, STARTUP_SECONDS, RunningServer, open_files, wait_until
from .wire import DONE, LONG, EventReader, assert_dual_error, messages, open_stream, text_of

MANY = 300
"""max_tokens of answers that outlast a few requests, but not the grace time."""


def children_of(server: RunningServer) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children, "the engine is a child process"
    return children


def opened(server: RunningServer, streams: ExitStack, count: int) -> list[EventReader]:
    """Open streams of long answers, each with its first event read."""
    readers = [streams.enter_context(open_stream(server)) for _ in range(count)]
    for reader in readers:
        reader.next()
    return readers


def assert_ends_with_error(reader: EventReader, *, code: str) -> None:
    """Chunks, then exactly one error event, and nothing after it."""
    events = [json.loads(event) for event in reader.rest() if event != DONE or pytest.fail(DONE)]
    assert [("error" in event) for event in events] == [False] * (len(events) - 1) + [True]
    assert set(events[-1]) == {"error", "error_type"}
    assert events[-1]["error"]["code"] == code
    assert events[-1]["error"]["message"]


class InBackground:
    """A long unstreamed request in a thread; `response()` waits for what became of it."""

    def __init__(self, server: RunningServer) -> None:
        self._url = f"{server.url}/v1/chat/completions"
        self._responses: list[httpx.Response] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def response(self) -> httpx.Response:
        self._thread.join(timeout=EXIT_SECONDS)
        assert self._responses, "no response"
        return self._responses[0]

    def _ask(self) -> None:
        body = {"messages": messages("Hello"), "max_tokens": LONG}
        self._responses.append(httpx.post(self._url, json=body, timeout=EXIT_SECONDS))


def sockets_of(pid: int) -> set[str]:
    """The sockets and pipes that a process has open, but for its standard ones."""
    links = [link for number, link in open_files(pid).items() if number > 2]
    return {link for link in links if link.startswith(("socket:", "pipe:"))}


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_open_streams_finish_and_new_ones_are_refused(
    own_server: RunningServer, number: signal.Signals
) -> None:
    children = children_of(own_server)
    with ExitStack() as streams:
        # Frozen, so that the streams are surely open while the listener is looked at.
        with own_server.paused_engine():
            readers = [
                streams.enter_context(open_stream(own_server, max_tokens=MANY)) for _ in range(4)
            ]
            own_server.signal(number)
            wait_until(lambda: own_server.health()[0] == 503, "/health says 503")
            assert own_server.health()[1]["open_requests"] == 4
            for stream in (False, True):
                refused = own_server.chat("Hello", stream=stream)
                assert_dual_error(refused, status=503, code="shutting_down")
                assert refused.headers["connection"] == "close"
        texts = set[str]()
        for reader in readers:
            events = reader.rest()
            assert events[-1] == DONE
            assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
            texts.add(text_of(events))
        assert len(texts) == 1
        assert len(texts.pop()) > MANY / 2
    assert own_server.wait_exit() == 0
    own_server.assert_gone(children)
    own_server.assert_clean_log()


@pytest.mark.server
def test_sigint_ends_an_idle_server_at_once(own_server: RunningServer) -> None:
    children = children_of(own_server)
    assert not sockets_of(own_server.engine().pid) & sockets_of(own_server.process.pid)
    own_server.signal(signal.SIGINT)
    # Far less than the 90 s of grace: there is nobody to wait for.
    assert own_server.wait_exit() == 0
    assert "shutting down: no request is open" in own_server.log()
    assert "waiting" not in own_server.log()
    own_server.assert_gone(children)
    own_server.assert_clean_log()


@pytest.mark.server("--graceful-termination-timeout", "0.5", "--max-concurrent-requests", "2")
def test_when_the_grace_time_is_over_everyone_is_told(own_server: RunningServer) -> None:
    children = children_of(own_server)
    with ExitStack() as streams:
        running = opened(own_server, streams, 2)
        queued = streams.enter_context(open_stream(own_server))
        whole = InBackground(own_server)
        own_server.wait_engine(num_running=2, num_waiting=2)
        own_server.signal(signal.SIGTERM)
        for reader in [*running, queued]:
            assert_ends_with_error(reader, code="shutting_down")
        assert_dual_error(whole.response(), status=503, code="shutting_down")
    assert own_server.wait_exit() == 0
    own_server.assert_gone(children)
    own_server.assert_clean_log()


@pytest.mark.server
def test_a_second_sigterm_skips_the_wait(own_server: RunningServer) -> None:
    children = children_of(own_server)
    with ExitStack() as streams:
        readers = opened(own_server, streams, 2)
        own_server.signal(signal.SIGTERM)
        wait_until(lambda: own_server.health()[0] == 503, "/health says 503")
        assert "waiting up to 90 s for 2 open requests; a second Ctrl-C" in own_server.log()
        for reader in readers:
            assert '"finish_reason":null' in reader.next()
        own_server.signal(signal.SIGTERM)
        for reader in readers:
            assert_ends_with_error(reader, code="shutting_down")
    assert own_server.wait_exit() == 0
    own_server.assert_gone(children)
    assert "shutting down: waiting no longer" in own_server.log()
    own_server.assert_clean_log()


@pytest.mark.server
@pytest.mark.parametrize("is_stuck", [False, True])
def test_the_engine_ends_when_the_server_is_killed(
    own_server: RunningServer, is_stuck: bool
) -> None:
    children = children_of(own_server)
    with open_stream(own_server) as reader:
        reader.next()
        if is_stuck:
            own_server.engine().suspend()
        own_server.signal(signal.SIGKILL)
        own_server.wait_exit()
        own_server.assert_gone(children)
        # The connection broke; whatever came before that, it was not a proper end.
        with pytest.raises(httpx.RemoteProtocolError):
            reader.rest()


@pytest.mark.server
def test_an_engine_killed_while_draining_is_told_and_ends_the_server(
    own_server: RunningServer,
) -> None:
    children = children_of(own_server)
    with ExitStack() as streams:
        readers = opened(own_server, streams, 2)
        own_server.signal(signal.SIGTERM)
        wait_until(lambda: own_server.health()[0] == 503, "/health says 503")
        own_server.engine().kill()
        for reader in readers:
            assert_ends_with_error(reader, code="engine_dead")
    # Far less than the 90 s of grace: there is nobody to wait for.
    assert own_server.wait_exit() == 0
    assert "waiting up to 90 s for 2 open requests" in own_server.log()
    assert "waiting no longer" not in own_server.log()
    own_server.assert_gone(children)
    own_server.assert_clean_log()


@pytest.mark.server("--max-concurrent-requests", "2")
def test_a_killed_engine_fails_its_requests_and_is_started_again(
    own_server: RunningServer,
) -> None:
    before = own_server.answer("Hello", max_tokens=6)
    old = own_server.engine()
    with ExitStack() as streams:
        running = opened(own_server, streams, 2)
        queued = streams.enter_context(open_stream(own_server))
        whole = InBackground(own_server)
        own_server.wait_engine(num_running=2, num_waiting=2)
        old.kill()
        for reader in [*running, queued]:
            assert_ends_with_error(reader, code="engine_dead")
        assert_dual_error(whole.response(), status=503, code="engine_dead")
    # Loading takes seconds; the requests above have just been told.
    status, body = own_server.health()
    assert (status, body["status"]) == (503, "restarting")
    error = assert_dual_error(own_server.chat("Hello"), status=503, code="engine_unavailable")
    assert error["type"] == "server_error"
    assert_started_again(own_server, old)
    assert own_server.answer("Hello", max_tokens=6) == before
    # Once more, with nothing to do.
    old = own_server.engine()
    old.kill()
    wait_until(lambda: own_server.health()[0] == 503, "/health turns red")
    assert_started_again(own_server, old)
    assert own_server.answer("Hello", max_tokens=6) == before


def test_an_engine_that_ends_while_it_loads_ends_the_server(tmp_path: Path) -> None:
    flags = ["--log-level", "error"]
    server = RunningServer(flags, tmp_path / "server.log", is_awaited=False, is_warm=True)
    try:
        wait_until(lambda: bool(server.engines()), "there is an engine", seconds=STARTUP_SECONDS)
        server.engine().kill()
        assert server.wait_exit() == 1
        assert server.log().splitlines() == [
            "millstream: the engine could not start: engine process ended with signal 9"
        ]
    finally:
        server.kill()


def assert_started_again(server: RunningServer, old: psutil.Process) -> None:
    wait_until(lambda: server.health()[0] == 200, "the engine is back", seconds=STARTUP_SECONDS)
    assert server.engine().pid != old.pid
