"""An engine killed in mid-answer: the stored response fails, and the server goes on."""

from __future__ import annotations

import httpx
import pytest

from .harness import STARTUP_SECONDS, RunningServer, wait_until
from .kept import data_of, number_of, said, written


@pytest.mark.server("--store", "memory")
def test_responses_fail_with_their_engine(own_server: RunningServer) -> None:
    with httpx.Client(base_url=own_server.url, timeout=60) as http:
        conversation = http.post("/v1/conversations", json={}).json()["id"]
        failed = [_kill(own_server, http, conversation, events=each) for each in (3, 20, 100)]
        asked = {"input": "Hello", "conversation": conversation, "max_output_tokens": 4}
        assert http.post("/v1/responses", json=asked).json()["status"] == "incomplete"
        for response in failed:
            assert http.get(f"/v1/responses/{response}").json()["status"] == "failed"


def _kill(server: RunningServer, http: httpx.Client, conversation: str, *, events: int) -> str:
    """Kills the engine after so many events of a response. Returns the response's id."""
    asked = {"input": "Count", "background": True, "stream": True, "conversation": conversation}
    body, frames = b"", list[bytes]()
    is_killed = False
    with http.stream("POST", "/v1/responses", json=asked) as response:
        assert response.status_code == 200, response.read()
        for part in response.iter_bytes():
            *whole, body = (body + part).split(b"\n\n")
            frames += [frame + b"\n\n" for frame in whole if not frame.startswith(b":")]
            if len(frames) >= events and not is_killed:
                server.engine().kill()
                is_killed = True
    assert [number_of(frame) for frame in frames] == list(range(len(frames)))
    last = data_of(frames[-1])
    assert last["type"] == "response.failed"
    identifier: str = last["response"]["id"]
    path = f"/v1/responses/{identifier}"
    stored = http.get(path).json()
    assert stored == last["response"]
    assert stored["error"]["message"]
    assert written(stored) == said(frames)
    assert http.get(path, params={"stream": "true"}).content == b"".join(frames)
    wait_until(lambda: server.health()[0] == 200, "it is back", seconds=STARTUP_SECONDS)
    return identifier
