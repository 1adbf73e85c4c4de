"""Keys, browsers and proxies: what stands between the socket and the routes."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest

from millstream.api.context import ServerContext
from millstream.api.guards.keys import RequireKey
from millstream.api.guards.protection import check_origins
from millstream.api.routes import all_routes
from millstream.core.request import Request
from millstream.errors import StartupError
from millstream.quotas.key_ring import KeyRing
from millstream.runtime.stream import TokenStream
from millstream.settings import Settings
from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

BODY = {"messages": [{"role": "user", "content": "!%"}], "max_tokens": 2}
CHAT = "/v1/chat/completions"
PAGE = "https://chat.example"
OPEN = {
    *(("GET", "/health/live"), ("GET", "/health/ready")),
    *(("GET", "/health"), ("GET", "/ping"), ("POST", "/ping"), ("GET", "/version")),
    *(("GET", "/docs"), ("GET", "/"), ("GET", "/page/{name}")),
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_unauthorized(response: httpx.Response) -> None:
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"]
    body = response.json()
    if "request-id" in response.headers:
        assert body["error"]["type"] == "authentication_error"
        return
    assert body["error_type"] == "authentication"
    if isinstance(body["error"], str):
        return
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == "invalid_api_key"
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("key", ["one", "two", "three"])
async def test_each_of_several_keys_opens(serve: Serve, key: str) -> None:
    client = serve(api_key=["one,two", "three"])
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {key}"}
        response = await client.post(CHAT, json=BODY, headers=headers)
        assert response.status_code == 200, response.text


async def test_each_key_has_a_prefix_cache_of_its_own(
    serve: Serve, context: ServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    salts: list[str] = []

    def start(stream: TokenStream, request: Request) -> None:
        salts.append(request.cache_salt)
        start_unwatched(stream, request)

    start_unwatched = TokenStream.start
    monkeypatch.setattr(TokenStream, "start", start)
    keyed, keyless = serve(api_key=["one,two"]), serve()
    completion = {"prompt": "!%", "max_tokens": 2}
    for path, body in ((CHAT, BODY), ("/v1/completions", completion)):
        for fields in ({}, {"cache_salt": "s"}):
            for key in ("one", "two"):
                await keyed.post(path, json=body | fields, headers=bearer(key))
            await keyless.post(path, json=body | fields)
    one, two = (sha256(key).hexdigest() for key in (b"one", b"two"))
    assert salts == [f"{one}:", f"{two}:", "", f"{one}:s", f"{two}:s", "s"] * 2


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Bearer sesam"],
        ["Bearer sesame2"],
        ["Bearer SESAME"],
        ["Bearer Bearer sesame"],
        ["Bearer sesame,other"],
        ["Basic sesame"],
        ["sesame"],
        ["Bearer ' OR 1=1 --"],
        ["Bearer " + "x" * 60_000],
        ["Bearer s\u00e9same"],
        ["Bearer \u4e2d"],
        ["Bearer sesame", "Bearer sesame"],
        ["Bearer wrong", "Bearer sesame"],
    ],
)
async def test_anything_else_is_refused(serve: Serve, given: list[str]) -> None:
    client = serve(api_key="sesame,other")
    headers = [(b"authorization", one.encode()) for one in given]
    assert_unauthorized(await client.post(CHAT, json=BODY, headers=headers))


async def test_the_key_is_not_looked_for_elsewhere(serve: Serve) -> None:
    client = serve(api_key="sesame")
    headers = {"X-Key": "sesame", "Api-Key": "sesame", "Cookie": "Authorization=Bearer sesame"}
    assert_unauthorized(await client.get("/v1/models?api_key=sesame", headers=headers))


async def test_every_key_is_compared_whatever_matches(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((len(given), len(known)))
        return original(given, known)

    original = hmac.compare_digest
    client = serve(api_key="a,bb,ccc")
    monkeypatch.setattr("millstream.quotas.key_ring.hmac.compare_digest", compare)
    for key in ("a", "ccc", "x" * 100):
        compared.clear()
        await client.get("/v1/models", headers=bearer(key))
        assert compared == [(32, 32)] * 3, "digests of one length, all of them"


async def test_only_the_listed_routes_are_open(serve: Serve, context: ServerContext) -> None:
    client = serve(api_key="sesame")
    routes = {(r.operation.method, r.path) for r in all_routes(context)}
    routes |= {("GET", "/docs"), ("GET", "/openapi.json")}
    found_open = set()
    for method, path in routes:
        response = await client.request(method, path.replace("{", "").replace("}", ""))
        if response.status_code != 401:
            found_open.add((method, path))
        else:
            assert_unauthorized(response)
    assert found_open == OPEN


@pytest.mark.parametrize(
    "path",
    ["http://test//health", "/health/", "/HEALTH", "/health/../v1/models", "http://test//",
     "/nothing", "/v1/models?x=/health", "/v1/models#/health",
     "/%68ealth/x", "/health%2f..%2fv1%2fmodels"],
)  # fmt: skip
async def test_no_path_is_mistaken_for_an_open_one(serve: Serve, path: str) -> None:
    assert_unauthorized(await serve(api_key="sesame").get(path))


async def test_the_host_does_not_matter(serve: Serve) -> None:
    for host in ("x/health?", "health", "/health"):
        response = await serve(api_key="sesame").get("/v1/models", headers={"Host": host})
        assert_unauthorized(response)


async def test_refused_before_the_body_is_read() -> None:
    async def unreachable(*_: Any) -> None:
        raise AssertionError("nothing is to be read or routed")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    keys = KeyRing(Settings(api_key="sesame").api_key or ())
    guarded = RequireKey(unreachable, keys=keys, is_open=lambda scope: False)
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    await guarded(scope, unreachable, send)
    assert sent[0]["status"] == 401


async def test_keys_appear_nowhere(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client = serve(api_key="sesame")
    texts = [repr(client), repr(Settings(api_key="sesame"))]
    for headers in ({}, bearer("sesame"), bearer("mellon")):
        for path in ("/v1/models", "/health", "/openapi.json", "/docs", "/nothing"):
            response = await client.get(path, headers=headers)
            texts.append(response.text + str(response.headers))
        texts.append((await client.post(CHAT, json=BODY, headers=headers)).text)
    texts.append(caplog.text)
    assert "sesame" not in "".join(texts)
    assert "mellon" not in "".join(texts)


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }


async def test_no_page_is_allowed_by_default(serve: Serve) -> None:
    client = serve()
    asked = await client.options(CHAT, headers=preflight(PAGE))
    answer = await client.post(CHAT, json=BODY, headers={"Origin": PAGE})
    assert asked.status_code == 405
    for response in (asked, answer):
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("keys", [None, "sesame"])
async def test_preflight_passes_without_a_key(serve: Serve, keys: str | None) -> None:
    response = await serve(api_key=keys, allowed_origins=PAGE).options(
        CHAT, headers=preflight(PAGE)
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "authorization" in response.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in response.headers
    assert "Origin" in response.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{PAGE}.evil.example", "http://chat.example", "null"]
)
async def test_other_pages_are_not_allowed(serve: Serve, origin: str) -> None:
    client = serve(allowed_origins=PAGE)
    asked = await client.options(CHAT, headers=preflight(origin))
    assert asked.status_code == 400
    answer = await client.post(CHAT, json=BODY, headers={"Origin": origin})
    for response in (asked, answer):
        assert "access-control-allow-origin" not in response.headers


async def test_all_pages(serve: Serve) -> None:
    client = serve(allowed_origins="*")
    for origin in (PAGE, "null"):
        response = await client.post(CHAT, json=BODY, headers={"Origin": origin})
        assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("status", "path", "options"),
    [
        (200, CHAT, {"json": BODY}),
        (200, CHAT, {"json": BODY | {"stream": True}}),
        (400, CHAT, {"json": {}}),
        (401, CHAT, {"json": BODY, "headers": bearer("wrong")}),
        (404, "/nothing", {"json": BODY}),
        (405, "/health", {"json": BODY}),
        (413, CHAT, {"content": b" " * 3000, "headers": {"Content-Type": "application/json"}}),
        (415, CHAT, {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        (429, CHAT, {"json": BODY | {"n": 6}}),
        (500, CHAT, {"json": BODY}),
    ],
    ids=str,
)  # fmt: skip
async def test_a_page_can_read_every_answer(
    serve: Serve,
    context: ServerContext,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    path: str,
    options: dict[str, Any],
) -> None:
    client = serve(api_key="sesame", allowed_origins=PAGE, payload_limit=2000)
    held = context.engine.open_many(1) if status == 429 else []
    if status == 500:
        monkeypatch.setattr("millstream.api.context.read_json", lambda *_, **__: 1 / 0)
    headers = bearer("sesame") | options.pop("headers", {}) | {"Origin": PAGE}
    response = await client.post(path, **options, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["access-control-allow-origin"] == PAGE
    exposed = response.headers["access-control-expose-headers"].lower()
    assert {"x-request-id", "retry-after"} <= set(exposed.split(", "))
    assert response.headers["x-request-id"]
    if status == 429:
        assert response.headers["retry-after"]
    for stream in held:
        stream.close()


async def test_credentials_only_for_named_pages(serve: Serve) -> None:
    client = serve(allowed_origins=PAGE, allow_credentials=True)
    response = await client.get("/health", headers={"Origin": PAGE})
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-allow-origin"] == PAGE
    check_origins(Settings(allowed_origins=PAGE, allow_credentials=True))
    for origins in (None, "*", f"{PAGE},*"):
        with pytest.raises(StartupError, match="--allowed-origins"):
            check_origins(Settings(allowed_origins=origins, allow_credentials=True))


@pytest.mark.parametrize("prefix", ["", "/llm/a"])
async def test_a_proxy_may_keep_its_prefix_or_not(serve: Serve, prefix: str) -> None:
    client = serve(root_path="/llm/a", api_key="sesame")
    assert (await client.get(f"{prefix}/health")).status_code == 200
    assert_unauthorized(await client.get(f"{prefix}/v1/models"))
    response = await client.post(f"{prefix}{CHAT}", json=BODY, headers=bearer("sesame"))
    assert response.status_code == 200
    response = await client.get(f"{prefix}/openapi.json", headers=bearer("sesame"))
    assert response.json()["servers"] == [{"url": "/llm/a"}]


@pytest.mark.parametrize("path", ["/llm/health", "/llm/abc/health", "/llm/a/llm/a/health"])
async def test_other_prefixes_lead_nowhere(serve: Serve, path: str) -> None:
    response = await serve(root_path="/llm/a").get(path)
    assert response.status_code == 404


async def test_a_route_may_begin_like_the_prefix(serve: Serve) -> None:
    client = serve(root_path="/he", api_key="sesame")
    for path in ("/health", "/he/health"):
        assert (await client.get(path)).status_code == 200


async def test_paths_are_not_redirected(serve: Serve) -> None:
    assert (await serve().post(CHAT + "/", json=BODY)).status_code == 404


@pytest.mark.parametrize("is_counted", [True, False])
async def test_payload_limit(serve: Serve, is_counted: bool) -> None:
    client = serve(payload_limit=1000)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    content = b" " * 1001 if is_counted else parts()
    response = await client.post(CHAT, content=content)
    assert ("content-length" in response.request.headers) == is_counted
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"
    body = b'{"messages": [{"role": "user", "content": "!%"}], "max_tokens": 2}'
    assert (await client.post(CHAT, content=body.ljust(1000))).status_code == 200


async def test_wrong_methods_are_told_the_right_ones(serve: Serve) -> None:
    client = serve()
    for path, allowed in (
        ("/ping", "GET, HEAD, POST"),
        (CHAT, "POST"),
        ("/docs", "GET, HEAD"),
        ("/v1/responses/compact", "POST"),
        ("/v1/responses/resp_1", "DELETE, GET, HEAD"),
    ):
        response = await client.put(path)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed


async def test_a_failure_tells_nothing_of_the_inside(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millstream.api.context.read_json", lambda *_, **__: 1 / 0)
    response = await serve().post(CHAT, json=BODY)
    assert response.status_code == 500
    assert "division" not in response.text
    assert response.headers["x-request-id"]


async def test_metrics_are_open_where_the_operator_says_so(serve: Serve) -> None:
    assert_unauthorized(await serve(api_key="sesame").get("/metrics"))
    client = serve(api_key="sesame", open_metrics=True)
    assert (await client.get("/metrics")).status_code == 200
    assert_unauthorized(await client.get("/load"))
    assert (await serve().get("/metrics")).status_code == 200
