"""The bytes of a stream, which some clients read literally."""

from __future__ import annotations

import json

import pytest

from .harness import RunningServer
from .wire import DONE, open_stream


def test_headers_of_a_stream(endless_server: RunningServer) -> None:
    with open_stream(endless_server, max_tokens=3) as stream:
        headers = stream.response.headers
        assert stream.response.status_code == 200
        assert headers["content-type"].split(";")[0] == "text/event-stream"
        assert headers["x-accel-buffering"] == "no"
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"]
        assert "content-length" not in headers
        assert stream.rest()[-1] == DONE


@pytest.mark.parametrize("usage", [False, True])
def test_events_are_data_lines_and_done_is_last(usage: bool, endless_server: RunningServer) -> None:
    with open_stream(
        endless_server, max_tokens=5, stream_options={"include_usage": usage}
    ) as stream:
        content = stream.response.read()
    assert content.isascii()
    assert content.endswith(b"\n\ndata: [DONE]\n\n")
    events = content.decode().removesuffix("\n\n").split("\n\n")
    events = [event for event in events if event != ": ping"]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert content.count(b"[DONE]") == 1
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert not any("error" in chunk for chunk in chunks)  # some clients raise even on null
    if usage:
        *chunks, last = chunks
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 5
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert not any("usage" in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"].get("role") for choice in choices] == ["assistant"] + [None] * (
        len(choices) - 1
    )
    assert choices[-1]["delta"] == {"content": ""}
    assert choices[-1]["finish_reason"] == "length"
    assert all(choice["finish_reason"] is None for choice in choices[:-1])


def test_text_that_looks_like_framing_is_escaped(endless_server: RunningServer) -> None:
    # Sampled hot, a random model says line breaks, quotes and broken bytes; all arrive as text.
    fields = {"temperature": 2, "seed": 5, "max_tokens": 200}
    with open_stream(endless_server, "Hello", **fields) as stream:
        events = stream.rest()
    assert events.count(DONE) == 1
    assert events[-1] == DONE
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == endless_server.answer("Hello", **fields)
