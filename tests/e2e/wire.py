"""Raw requests: what the SDKs hide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from .harness import RunningServer

LONG = 30_000
"""max_tokens of an answer that takes minutes: when it is over, somebody stopped it."""

DONE = "[DONE]"


def messages(content: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


class EventReader:
    """The events of one response as they arrive; comments are counted, not returned."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.num_comments = 0
        self._lines = response.iter_lines()

    def next(self) -> str:
        """The next event's data. Raises StopIteration at the end of the response."""
        while True:
            line = next(self._lines)
            if line.startswith(":"):
                self.num_comments += 1
            elif line:
                assert line.startswith("data: "), line
                return line.removeprefix("data: ")

    def wait_comments(self, count: int) -> None:
        """Reads comments until `count` have come; anything else is a failure."""
        while self.num_comments < count:
            line = next(self._lines)
            assert line == "" or line.startswith(":"), line
            self.num_comments += line.startswith(":")

    def rest(self) -> list[str]:
        """The data of all events that still come, up to the end of the response."""
        events = []
        while True:
            try:
                events.append(self.next())
            except StopIteration:
                return events


@contextmanager
def open_stream(
    server: RunningServer, content: str = "Tell me a story", **fields: Any
) -> Iterator[EventReader]:
    """A streamed request whose headers have come. Leaving the block closes the connection."""
    body = {"messages": messages(content), "stream": True, "temperature": 0, "max_tokens": LONG}
    body |= fields
    url = f"{server.url}/v1/chat/completions"
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, json=body) as response,
    ):
        yield EventReader(response)


def text_of(events: list[str]) -> str:
    """The joined content of the chunks among `events`."""
    chunks = [json.loads(event) for event in events if event != DONE]
    return "".join(c["choices"][0]["delta"]["content"] for c in chunks if c["choices"])


def assert_dual_error(response: httpx.Response, *, status: int, code: str | None = None) -> Any:
    """Checks status and shape of an error response; returns its `error` object."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    body = response.json()
    assert set(body) == {"error", "error_type"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    if code is not None:
        assert body["error"]["code"] == code
    return body["error"]
