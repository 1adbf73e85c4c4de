"""Two servers on one PostgreSQL: what one began, the other goes on with, also when one is gone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.store.conftest import PostgreSQL, postgresql

from .harness import RunningServer, wait_until
from .wire import LONG, assert_dual_error

__all__ = ["postgresql"]

_SHORT = {"max_output_tokens": 4, "temperature": 0}
_ALL = {"stream": "true"}
Event = dict[str, Any]


class Replicas(NamedTuple):
    """Two that answer alike, since they serve one model, and share their store."""

    first: RunningServer
    other: RunningServer


@pytest.fixture
def replicas(postgresql: PostgreSQL, endless_model: Path, tmp_path: Path) -> Iterator[Replicas]:
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    flags += ["--store", postgresql.new_database()]
    started = [
        RunningServer(flags, tmp_path / f"{name}.log", is_awaited=False, is_warm=True)
        for name in Replicas._fields
    ]
    try:
        for server in started:
            server.wait_ready()
        yield Replicas(*started)
        for server in started:
            if server.is_running:
                server.stop()
    finally:
        for server in started:
            server.kill()


def ask(server: RunningServer, path: str = "/v1/responses", **body: Any) -> Any:
    response = httpx.post(f"{server.url}{path}", json=_SHORT | body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def get(server: RunningServer, path: str, **query: str) -> Any:
    response = httpx.get(f"{server.url}{path}", params=query, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def text_of(response: Any) -> str:
    """What a response says; also that of one that was cut off."""
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def begin(server: RunningServer, *, until: str, **body: Any) -> list[Event]:
    """Begins an answer that goes on without its reader, who leaves with the event `until`."""
    asked = {"input": "Tell me a story", "stream": True, "background": True, "temperature": 0}
    url = f"{server.url}/v1/responses"
    told = []
    with httpx.stream("POST", url, json=asked | body, timeout=60) as response:
        for event in events_of(response):
            told.append(event)
            if event["type"] == until:
                break
    return told


def events_of(response: httpx.Response) -> Iterator[Event]:
    assert response.status_code == 200, response.read()
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def all_events(server: RunningServer, path: str) -> list[Event]:
    with httpx.stream("GET", f"{server.url}{path}", params=_ALL, timeout=60) as response:
        return list(events_of(response))


def test_what_one_began_the_other_goes_on_with(replicas: Replicas) -> None:
    first, other = replicas
    begun = ask(first, input="My name is Anna.")
    question = {"input": "What is my name?", "previous_response_id": begun["id"]}
    there, here = ask(other, **question), ask(first, **question)
    assert text_of(there) == text_of(here) != ""
    alone = ask(other, input="What is my name?")
    assert there["usage"]["input_tokens"] > alone["usage"]["input_tokens"]
    assert get(other, f"/v1/responses/{begun['id']}") == begun

    conversation = ask_conversation(first)
    for server in (first, other, first):
        ask(server, input="Go on.", conversation=conversation)
    items = f"/v1/conversations/{conversation}/items"
    listed = [get(server, items, order="asc")["data"] for server in replicas]
    assert listed[0] == listed[1]
    assert [item["role"] for item in listed[0]] == ["user", "assistant"] * 3

    # A visitor's cookie is of both, and so are the chats that it leads to.
    with httpx.Client(timeout=60) as visitor:
        current = "/v1/chats/current"
        for server in (first, other):
            body = {"content": "Hello", "max_output_tokens": 4}
            said = visitor.post(f"{server.url}{current}/messages", json=body)
            assert said.status_code == 200, said.text
        shown = [visitor.get(f"{server.url}{current}").json() for server in replicas]
        assert shown[0] == shown[1]
        assert len(shown[0]["messages"]) == 4


def ask_conversation(server: RunningServer) -> str:
    created = httpx.post(f"{server.url}/v1/conversations", json={}, timeout=60)
    identifier: str = created.json()["id"]
    return identifier


def test_what_a_killed_one_said_is_read_from_the_other(replicas: Replicas) -> None:
    killed, other = replicas
    told = begin(killed, until="response.output_text.delta", max_output_tokens=LONG)
    path = f"/v1/responses/{told[0]['response']['id']}"
    unhurt = begin(other, until="response.output_text.delta", max_output_tokens=50)
    with killed.paused_engine():  # the answer is surely not over
        engine = killed.engine()
        killed.signal(signal.SIGKILL)
        killed.wait_exit()
    killed.assert_gone([engine])
    wait_until(lambda: get(other, path)["status"] == "failed", "the other sees that nobody answers")
    response = get(other, path)
    assert response["error"]["code"] == "server_restarted"
    events = all_events(other, path)
    assert events[: len(told)] == told
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1] == {
        "type": "response.failed",
        "sequence_number": len(events) - 1,
        "response": response,
    }
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    assert text_of(response) == "".join(deltas) != ""
    # And it serves on: what it had, and what goes on from what was kept.
    mine = f"/v1/responses/{unhurt[0]['response']['id']}"
    assert all_events(other, mine)[-1]["type"] == "response.incomplete"
    assert ask(other, input="Go on.")["status"] == "incomplete"


def test_one_drains_while_the_other_goes_on(replicas: Replicas) -> None:
    draining, other = replicas
    with draining.paused_engine():  # the answer is surely not over
        told = begin(draining, until="response.queued", max_output_tokens=50)
        path = f"/v1/responses/{told[0]['response']['id']}"
        draining.signal(signal.SIGTERM)
        wait_until(lambda: draining.health()[0] == 503, "it is red")
        assert_dual_error(draining.chat(), status=503, code="shutting_down")
        assert other.chat().status_code == 200
        # It is being made, and is not taken for one that nobody makes any more.
        assert get(other, path)["status"] == "in_progress"
    assert draining.wait_exit() == 0
    response = get(other, path)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    events = all_events(other, path)
    assert events[: len(told)] == told
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"] == response
    draining.assert_clean_log()
