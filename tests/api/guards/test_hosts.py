"""By which names the server may be called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from millstream.api.context import ServerContext
from millstream.api.guards.hosts import CheckHost
from millstream.api.routes import all_routes
from tests.api.described_transport import CheckedTransport
from tests.api.guards.test_edge import BODY, CHAT, OPEN, PAGE, bearer, preflight
from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

NAMES = "llm.example,*.Lab.example"


def host(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", value.encode("latin-1")) for value in values]


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 403
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    if "request-id" in response.headers:
        assert error["type"] == "permission_error"
        return
    if isinstance(error, str):
        assert response.json()["error_type"] == "validation"
        return
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == ("host_not_allowed", "invalid_request_error")


@pytest.mark.parametrize(
    "name",
    [
        *("llm.example", "LLM.Example", "llm.example.", "llm.example:8080", "llm.example:"),
        *("a.lab.example", "b.a.LAB.example:1", "localhost", "localhost:8080", "chat.localhost"),
        *("127.0.0.1", "127.0.0.1:8080", "10.1.2.3", "[::1]", "[::1]:8080", "[2001:DB8::7]:80"),
        "[::ffff:127.0.0.1]",
    ],
)
async def test_its_own_names_and_addresses_are_answered(serve: Serve, name: str) -> None:
    client = serve(allowed_hosts=NAMES)
    response = await client.post(CHAT, json=BODY, headers={"Host": name})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "names",
    [
        *(["evil.example"], ["llm.example.evil.example"], ["evil-llm.example"], ["example"]),
        *(["lab.example"], ["evillab.example"], [".lab.evil"], ["localhost.evil.example"]),
        *(["evillocalhost"], ["127.0.0.1.evil.example"], ["1.2.3"], ["0x7f000001"], ["::1"]),
        *([""], [], ["[::1"], ["[evil]"], ["[bad]"], ["[::1]evil"], ["[]"], ["localh\xf6st"]),
        *(["localhost/evil"], ["localhost:80:80"], ["localhost:x"], ["evil.example@localhost"]),
        *(["local host"], ["localhost evil.example"], ["localhost,evil.example"]),
        *(["evil.example#localhost"], ["localhost.."]),
        *(["localhost", "evil.example"], ["localhost", "localhost"]),
    ],
    ids=str,
)
async def test_others_are_refused(serve: Serve, names: Sequence[str]) -> None:
    transport = serve(allowed_hosts=NAMES)._transport
    assert isinstance(transport, CheckedTransport)
    # A client would add a header of its own.
    assert_refused(await ask(transport.app, host(*names)))


async def ask(app: Any, headers: list[tuple[bytes, bytes]]) -> httpx.Response:
    """The answer of an app that is not to read the body."""
    messages: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nothing of the body is to be read")

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
    await app(scope, receive, send)
    start, body = messages
    return httpx.Response(start["status"], headers=start["headers"], content=body["body"])


async def test_any_name_by_default(serve: Serve) -> None:
    for name in ("evil.example", "[", "", "x/health?"):
        response = await serve().post(CHAT, json=BODY, headers={"Host": name})
        assert response.status_code == 200


async def test_the_refusal_says_what_to_do(serve: Serve) -> None:
    client = serve(allowed_hosts="localhost")
    response = await client.get("/v1/models", headers={"Host": "evil.example:80"})
    message = response.json()["error"]["message"]
    assert "'evil.example:80'" in message
    assert "--allowed-hosts" in message
    response = await client.get("/v1/models", headers={"Host": "x" * 5000})
    assert len(response.content) < 500


@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_only_open_routes_answer_to_any_name(
    serve: Serve, context: ServerContext, prefix: str
) -> None:
    client = serve(allowed_hosts="llm.example", api_key="sesame", root_path="/llm")
    routes = {(r.operation.method, r.path) for r in all_routes(context)}
    routes |= {("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("PUT", CHAT)}
    found = set()
    for method, path in routes:
        target = prefix + path.replace("{", "").replace("}", "")
        headers = bearer("sesame") | {"Host": "10.0.0.1.evil.example"}
        response = await client.request(method, target, headers=headers)
        if response.status_code == 403:
            assert_refused(response)
        else:
            found.add((method, path))
    assert found == OPEN
    assert {("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")} < found


async def test_a_name_is_no_key(serve: Serve) -> None:
    client = serve(allowed_hosts="llm.example", api_key="sesame")
    for name, key, status in (
        ("llm.example", "sesame", 200),
        ("llm.example", "wrong", 401),
        ("evil.example", "sesame", 403),
        ("evil.example", "wrong", 403),
    ):
        headers = bearer(key) | {"Host": name}
        assert (await client.get("/v1/models", headers=headers)).status_code == status


async def test_a_page_can_read_the_refusal(serve: Serve) -> None:
    client = serve(allowed_hosts="llm.example", allowed_origins=PAGE)
    asked = await client.options(CHAT, headers=preflight(PAGE) | {"Host": "evil.example"})
    assert asked.status_code == 200
    response = await client.post(CHAT, json=BODY, headers={"Origin": PAGE, "Host": "evil.example"})
    assert_refused(response)
    assert response.headers["access-control-allow-origin"] == PAGE


async def test_the_document_has_the_refusal_where_it_can_come(serve: Serve) -> None:
    for settings, is_there in (({}, False), ({"allowed_hosts": "test"}, True)):
        found = (await serve(**settings).get("/openapi.json")).json()["paths"]
        assert ("403" in found["/v1/models"]["get"]["responses"]) == is_there
        assert "403" not in found["/health"]["get"]["responses"]


async def test_refused_before_anything_is_routed() -> None:
    async def unreachable(*_: Any) -> None:
        raise AssertionError("nothing is to be read or routed")

    guarded = CheckHost(unreachable, names=("llm.example",), is_open=lambda scope: False)
    assert (await ask(guarded, host("evil.example"))).status_code == 403
