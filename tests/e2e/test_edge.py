"""Keys, TLS, browsers and proxies over real sockets, with real clients."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI
from websockets.sync.client import connect

from tests.certificates import make_certificate

from .harness import RunningServer
from .wire import messages

PAGE = "https://chat.example"
KEYS = ("first-key", "second-key")


@dataclass(frozen=True)
class Guarded:
    """A server, and what a client needs to trust it."""

    server: RunningServer
    http: httpx.Client
    tls: ssl.SSLContext

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(self.server.url)


@pytest.fixture(scope="module")
def guarded(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """The demo model with TLS, two keys in the environment, a page and a prefix."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = make_certificate(folder, password="mellon")
    flags = ["--ssl-certfile", certificate, "--ssl-keyfile", key, "--root-path", "/llm"]
    flags += ["--allowed-origins", PAGE, "--payload-limit", "20000"]
    secrets = {"MILLSTREAM_API_KEY": ",".join(KEYS), "MILLSTREAM_SSL_KEYFILE_PASSWORD": "mellon"}
    tls = ssl.create_default_context(cafile=certificate)
    server = RunningServer(flags, folder / "server.log", variables=secrets, tls=tls)
    fleet.append(server)
    with httpx.Client(base_url=server.url, verify=tls, timeout=60) as http:
        yield Guarded(server, http, tls)
    fleet.remove(server)
    server.stop()


def openai_client(guarded: Guarded, key: str, *, prefix: str = "") -> OpenAI:
    return OpenAI(
        base_url=f"{guarded.server.url}{prefix}/v1",
        api_key=key,
        max_retries=0,
        http_client=httpx.Client(verify=guarded.tls),
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("key", KEYS, ids=["first", "second"])
@pytest.mark.parametrize("prefix", ["", "/llm"])
def test_the_official_client_with_its_key(guarded: Guarded, key: str, prefix: str) -> None:
    assert guarded.server.url.startswith("https://")
    with openai_client(guarded, key, prefix=prefix) as client:
        stream = client.chat.completions.create(
            model="any", messages=messages("Count to 3"), stream=True, temperature=0
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == "1\n2\n3"
        assert [model.id for model in client.models.list()] == ["millstream-demo"]


def test_the_official_client_with_a_wrong_key(guarded: Guarded) -> None:
    with openai_client(guarded, "wrong") as client:
        for streamed in (True, False):
            with pytest.raises(openai.AuthenticationError) as caught:
                client.chat.completions.create(
                    model="any", messages=messages("Hi"), stream=streamed
                )
            assert caught.value.code == "invalid_api_key"
            assert caught.value.request_id


def test_keys_stay_in_the_server_process(guarded: Guarded) -> None:
    guarded.http.get("/v1/models", headers=bearer("a-wrong-key"))
    engine = guarded.server.engine()
    seen = " ".join([*engine.cmdline(), *engine.environ().values(), *engine.environ()])
    seen += guarded.server.log()
    assert not re.findall(rf"\S*(?:{'|'.join(KEYS)}|mellon|a-wrong-key)\S*", seen)


def test_a_page_in_a_browser(guarded: Guarded) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    response = guarded.http.options("/v1/chat/completions", headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    body = {"messages": messages("Count to 3"), "stream": True, "temperature": 0}
    for key, status in ((KEYS[0], 200), ("wrong", 401)):
        headers = bearer(key) | {"Origin": PAGE}
        response = guarded.http.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in response.headers["access-control-expose-headers"].lower()


def test_the_document_and_its_page(guarded: Guarded) -> None:
    assert guarded.http.get("/openapi.json").status_code == 401
    found = guarded.http.get("/llm/openapi.json", headers=bearer(KEYS[0])).json()
    assert found["servers"] == [{"url": "/llm"}]
    page = guarded.http.get("/llm/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text


@pytest.mark.parametrize("path", ["/", "/llm", "/llm/"])
def test_the_address_leads_to_the_page(path: str, guarded: Guarded) -> None:
    page = guarded.http.get(path, headers={"Accept": "text/html,*/*"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:href|src)="(.+?)"', page.text)
    assert "/llm/page/chat.js" in links
    for link in links:
        assert link.startswith("/llm/")
        assert guarded.http.get(link).status_code == 200
    line = guarded.http.get(path, headers={"Accept": "*/*"})
    assert line.headers["content-type"].startswith("text/plain")
    assert "/llm/docs" in line.text
    head = guarded.http.head(path)
    assert (head.status_code, head.text) == (200, "")


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(("key", "status"), [(KEYS[0], 413), ("wrong", 401)], ids=["413", "401"])
def test_refusals_of_large_bodies_arrive(
    guarded: Guarded, key: str, status: int, is_counted: bool
) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    content = b" " * 4_000_000 if is_counted else parts()
    response = guarded.http.post("/v1/chat/completions", content=content, headers=bearer(key))
    assert response.status_code == status
    assert guarded.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/v1/models", "x/health?"),
        ("/v1/models", "x/health#"),
        ("/v1/../health", "x"),
        ("/health/../v1/models", "x"),
        ("//health", "x"),
        ("/llm/llm/health", "x"),
        ("https://x/health", "x"),
        ("/%2fhealth", "x"),
        ("/health;/v1/models", "x"),
    ],
)
def test_raw_targets_do_not_get_past_the_key(guarded: Guarded, target: str, host: str) -> None:
    address = (guarded.url.host, guarded.url.port)
    with (
        socket.create_connection(address, timeout=30) as plain,
        guarded.tls.wrap_socket(plain, server_hostname=guarded.url.host) as tls,
    ):
        tls.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")), answer[:200]


def test_plain_http_is_not_answered(guarded: Guarded) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{guarded.url.host}:{guarded.url.port}/health")


def test_websockets_are_encrypted_too(guarded: Guarded) -> None:
    url = f"wss://{guarded.url.host}:{guarded.url.port}/llm/v1/responses"
    headers = bearer(KEYS[1])
    with connect(url, ssl=guarded.tls, additional_headers=headers) as client:
        client.send(json.dumps({"type": "response.create", "input": "Hi", "max_output_tokens": 2}))
        kinds = [json.loads(client.recv())["type"]]
        while kinds[-1] not in ("response.completed", "response.incomplete", "error"):
            kinds.append(json.loads(client.recv())["type"])
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.incomplete"


def test_streams_end_well_over_tls(guarded: Guarded) -> None:
    """A client that leaves in the middle frees its place; the next one is served."""
    body = {"messages": messages("Count to 100"), "stream": True}
    with guarded.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=bearer(KEYS[0])
    ) as response:
        assert next(response.iter_lines()).startswith("data: ")
    guarded.server.wait_idle()


def test_other_names_than_its_own_are_refused(fleet: list[RunningServer], tmp_path: Path) -> None:
    server = RunningServer(
        ["--allowed-hosts", "llm.example"], tmp_path / "server.log", is_warm=True
    )
    fleet.append(server)
    try:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for name in ("llm.example", "localhost:1", "127.0.0.1"):
                assert http.get("/v1/models", headers={"Host": name}).status_code == 200
            for name in ("rebound.example", "example", "llm.example.org"):
                refused = http.get("/v1/models", headers={"Host": name})
                assert refused.status_code == 403
                assert refused.json()["error"]["code"] == "host_not_allowed"
                assert http.get("/health", headers={"Host": name}).status_code == 200
    finally:
        fleet.remove(server)
        server.stop()
