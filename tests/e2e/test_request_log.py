"""A line in the log for each request, with its fields, and nothing of what the client wrote."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from .harness import RunningServer, wait_until
from .wire import LONG, EventReader, messages

KEY = "sesame-key"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PAGE, STRANGE_PAGE = "https://chat.example", "https://elsewhere.example"
LIMIT = 300  # tokens of an answer

FLAGS = (
    *("--max-concurrent-requests", "1", "--max-queue-size", "1", "--kv-cache-memory", "64MiB"),
    *("--max-output-tokens", str(LIMIT), "--payload-limit", "2000", "--api-key", KEY),
    *("--allowed-hosts", "llm.example", "--allowed-origins", PAGE),
)
COUNTS = ["completion", "prompt", "cached", "answer"]
ANSWERED = [*COUNTS, "finish", "queue", "first"]


@pytest.fixture(scope="module")
def server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("request-log") / "server.log"
    server = RunningServer(["--model-id", str(endless_model), *FLAGS], log, is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


class Line:
    """A line of the log. fields: by name, in their order."""

    def __init__(self, text: str) -> None:
        self.method, self.path, self.status, *pairs = text.split(" ")
        self.fields = dict(pair.split("=", 1) for pair in pairs)

    @property
    def names(self) -> list[str]:
        """Those of the fields between the first and the last, which every line has."""
        first, *between, last = self.fields
        assert (first, last) == ("id", "time")
        return [name for name in between if name != "owner"]

    def seconds(self, name: str) -> float:
        found = re.fullmatch(r"(\d+\.\d{3})s", self.fields[name])
        assert found is not None, self.fields
        return float(found[1])


def lines_of(server: RunningServer) -> list[str]:
    return re.findall(r" INFO millstream\.requests: (.*)", server.log())


def line_of(server: RunningServer, request_id: str) -> Line:
    """The one line of a request, for which this waits."""

    def found() -> list[str]:
        return [line for line in lines_of(server) if f" id={request_id} " in line]

    wait_until(lambda: bool(found()), f"the line of {request_id}")
    assert len(found()) == 1
    return Line(found()[0])


def named(response: httpx.Response) -> str:
    """The id of the request that was answered."""
    request_id: str = response.headers["x-request-id"]
    return request_id


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": messages("Tell me a story"), "max_tokens": 5, "temperature": 0} | fields


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_whole_answer(path: str, server: RunningServer, client: httpx.Client) -> None:
    body = chat() if path == CHAT else {"prompt": "Tell me a story", "max_tokens": 5}
    for _ in range(2):
        response = client.post(path, json=body)
    line, usage = line_of(server, named(response)), response.json()["usage"]
    assert (line.method, line.path, line.status) == ("POST", path, "200")
    assert line.names == ANSWERED
    assert line.fields["completion"] == response.json()["id"]
    assert line.fields["finish"] == "length"
    assert int(line.fields["prompt"]) == usage["prompt_tokens"]
    assert int(line.fields["cached"]) == usage["prompt_tokens_details"]["cached_tokens"]
    assert int(line.fields["answer"]) == usage["completion_tokens"] == 5
    assert 0 <= line.seconds("queue") <= line.seconds("first") <= line.seconds("time") < 60


def test_a_line_says_whose_a_request_is(server: RunningServer, client: httpx.Client) -> None:
    lines = [line_of(server, named(client.get("/v1/models"))) for _ in range(2)]
    owners = {line.fields["owner"] for line in lines}
    assert owners == {sha256(KEY.encode()).hexdigest()[:8]}
    stranger = client.get("/v1/models", headers={"authorization": "Bearer x"})
    assert "owner" not in line_of(server, named(stranger)).fields


def test_the_answers_of_one_request_share_a_line(
    server: RunningServer, client: httpx.Client
) -> None:
    response = client.post(CHAT, json=chat(n=2, max_tokens=3, stream=True))
    line = line_of(server, named(response))
    assert line.fields["finish"] == "length,length"
    assert line.fields["answer"] == "6"


def test_a_stream_has_its_line_when_it_ends(server: RunningServer, client: httpx.Client) -> None:
    headers = {"x-request-id": "my-stream"}
    body = chat(stream=True, max_tokens=LONG)
    with (
        server.paused_engine(),  # the answer is surely not over
        client.stream("POST", CHAT, json=body, headers=headers) as response,
    ):
        assert "my-stream" not in server.log()
        server.engine().resume()
        reader = EventReader(response)
        completion = json.loads(reader.next())["id"]
        reader.rest()
    line = line_of(server, "my-stream")
    assert line.names == ANSWERED
    assert line.fields["completion"] == completion
    assert line.fields["answer"] == str(LIMIT), "--max-output-tokens"
    assert line.fields["finish"] == "length"
    assert line.seconds("first") < line.seconds("time")


def test_a_client_that_leaves_its_stream(endless_server: RunningServer) -> None:
    headers = {"x-request-id": "leaving-stream"}
    body = chat(stream=True, max_tokens=LONG)
    url = endless_server.url + CHAT
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        EventReader(response).next()
    line = line_of(endless_server, "leaving-stream")
    assert line.status == "200"
    assert line.names == [*COUNTS, "queue", "first", "error"]
    assert line.fields["error"] == "client_left"
    assert 0 < int(line.fields["answer"]) < LONG


def test_a_client_that_does_not_wait_for_its_answer(
    server: RunningServer, client: httpx.Client
) -> None:
    body, headers = chat(max_tokens=LONG), {"x-request-id": "leaving"}
    with server.paused_engine():
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=body, headers=headers, timeout=2)
        server.wait_open(0)
    line = line_of(server, "leaving")
    assert (line.status, line.fields["error"]) == ("499", "client_left")
    assert line.fields["answer"] == "0"


def test_who_waits_and_who_is_refused(server: RunningServer, client: httpx.Client) -> None:
    first, second = chat(stream=True, max_tokens=LONG), chat(stream=True)
    headers = {"x-request-id": "second"}
    with (
        server.paused_engine(),  # both are surely not over while a third one comes
        client.stream("POST", CHAT, json=first) as running,
        client.stream("POST", CHAT, json=second, headers=headers) as waiting,
    ):
        full = client.post(CHAT, json=chat())
        server.engine().resume()
        EventReader(running).next()
        running.close()
        EventReader(waiting).rest()
    line = line_of(server, "second")
    assert line.names == ANSWERED
    assert 0 < line.seconds("queue") <= line.seconds("first")
    line = line_of(server, named(full))
    assert line.status == "429"
    assert line.names == ["error", "flag"]
    assert (line.fields["error"], line.fields["flag"]) == ("overloaded", "--max-queue-size")


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_breaks_an_answer_off(
    is_stream: bool, server: RunningServer, client: httpx.Client
) -> None:
    headers = {"x-request-id": f"late-{is_stream}"}
    with server.paused_engine():
        client.post(CHAT, json=chat(stream=is_stream, timeout=1.5), headers=headers)
    line = line_of(server, f"late-{is_stream}")
    assert line.status == ("200" if is_stream else "504")
    assert line.names == [*COUNTS, "error"]
    assert line.fields["error"] == "timeout"


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        ({"json": chat(n=0)}, 400, {"error": "invalid_value", "param": "n"}),
        ({"json": chat(nonsense=1)}, 400, {"error": "unknown_parameter", "param": "nonsense"}),
        ({"content": b"{"}, 400, {"error": "invalid_json"}),
        ({"content": b"<a>", "headers": {"content-type": "text/xml"}}, 415, {}),
        ({"json": chat(user="u" * 2000)}, 413, {"flag": "--payload-limit"}),
        ({"json": chat(), "headers": {"authorization": "Bearer x"}}, 401, {}),
        ({"headers": {"host": "other.example"}}, 403, {"flag": "--allowed-hosts"}),
        ({"method": "GET"}, 405, {"error": "method_not_allowed"}),
        ({"url": "/v1/nowhere", "json": {}}, 404, {"error": "not_found"}),
    ],
)
def test_refusals(
    options: dict[str, Any],
    status: int,
    expected: dict[str, str],
    server: RunningServer,
    client: httpx.Client,
) -> None:
    given = {"method": "POST", "url": CHAT} | options
    response = client.request(**given)
    line = line_of(server, named(response))
    assert (line.method, line.path) == (given["method"], given["url"])
    assert line.status == str(status) == str(response.status_code)
    assert line.fields["error"] == response.json()["error"]["code"]
    assert set(line.names) == {"error", *expected}
    assert expected.items() <= line.fields.items()


@pytest.mark.parametrize("page", [STRANGE_PAGE, "null"])
def test_pages_that_are_not_allowed(page: str, server: RunningServer, client: httpx.Client) -> None:
    wanted = {"access-control-request-method": "POST"}
    asked = client.options(CHAT, headers={"origin": page, **wanted})
    read = client.get("/v1/models", headers={"origin": page})
    assert (asked.status_code, read.status_code) == (400, 200)
    for response in (asked, read):
        line = line_of(server, named(response))
        assert line.status == str(response.status_code)
        assert line.names == ["refused_origin", "flag"]
        assert line.fields["refused_origin"] == page
        assert line.fields["flag"] == "--allowed-origins"


def test_pages_that_are_allowed(server: RunningServer, client: httpx.Client) -> None:
    own = [{"origin": server.url}, {"origin": "https://proxied", "sec-fetch-site": "same-origin"}]
    for headers in ({"origin": PAGE}, *own):
        line = line_of(server, named(client.get("/v1/models", headers=headers)))
        assert line.names == [], headers


def test_what_is_not_http(server: RunningServer) -> None:
    place = urlsplit(server.url)
    assert place.hostname is not None
    assert place.port is not None
    before = lines_of(server)
    with socket.create_connection((place.hostname, place.port), timeout=30) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        while raw.recv(1000):
            pass
    wait_until(lambda: len(lines_of(server)) > len(before), "its line")
    assert lines_of(server)[len(before) :] == ["- - 400 error=invalid_http"]


def test_probes_that_go_well_have_no_line(server: RunningServer, client: httpx.Client) -> None:
    quiet = [client.get(path) for path in ("/health", "/ping", "/load")]
    refused = client.get("/load", headers={"authorization": "Bearer x"})
    assert line_of(server, named(refused)).status == "401"
    assert not any(named(response) in server.log() for response in quiet)


def test_nothing_that_a_client_wrote_is_in_the_log(
    server: RunningServer, client: httpx.Client
) -> None:
    secret = "hunter2"
    asked = [
        client.post(CHAT, json=chat(messages=messages(secret))),
        client.post(CHAT, json=chat(messages=messages(secret), n=0)),
        client.post(CHAT, json=chat(**{f"my {secret}": 1})),
        client.post(CHAT, content=f'{{"messages": "{secret}'.encode()),
        client.get(f"/v1/models?q={secret}"),
        client.get("/v1/models", headers={"authorization": f"Bearer {secret}"}),
    ]
    for response in asked:
        line_of(server, named(response))
    assert secret not in server.log()
    assert KEY not in server.log()
    forged = client.get("/v1/a%20id=forged%0a2026 INFO millstream.requests: x")
    assert line_of(server, named(forged)).path.startswith("/v1/a%20id%3Dforged%0A2026")
