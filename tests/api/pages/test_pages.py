"""What a browser gets at / and /page/NAME, and what it may do with it."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from millstream.api.pages.asset_files import asset_files
from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SCRIPT = "/page/chat.js"
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "dompurify",
    "frame-ancestors": "'none'",
}


async def test_browsers_get_the_page_and_others_a_line(serve: Serve) -> None:
    client = serve(api_key="sesame")
    page = await client.get("/", headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert '<script type="module" src="page/chat.js">' in page.text
    head = await client.head("/", headers=BROWSER)
    assert (head.status_code, head.headers["etag"]) == (200, page.headers["etag"])
    line = await client.get("/")
    assert line.text.startswith("Millstream. The API is below /v1;")
    assert {"Accept"} == {page.headers["vary"].split(",")[0], line.headers["vary"]}


@pytest.mark.parametrize("root", ["", "/llm"])
async def test_what_a_page_names_is_there(serve: Serve, root: str) -> None:
    client = serve(**({"root_path": root} if root else {}))
    for address in {root or "/", root + "/"}:
        page = (await client.get(address, headers=BROWSER)).text
        named = [urljoin(address, name) for name in re.findall(r'(?:src|href)="([^"]+)"', page)]
        assert {f"{root}{SCRIPT}", f"{root}/docs"} <= set(named)
        for name in named:
            assert (await client.get(name)).status_code == 200, name


async def test_a_page_may_only_ask_its_server(serve: Serve) -> None:
    client = serve()
    for path in ("/", SCRIPT, "/page/icon.svg"):
        headers = (await client.get(path, headers=BROWSER)).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


async def test_what_a_browser_has_is_not_sent_again(serve: Serve) -> None:
    client = serve()
    for path in ("/", SCRIPT):
        first = await client.get(path, headers=BROWSER)
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        for given in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            again = await client.get(path, headers=BROWSER | {"If-None-Match": given})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        changed = await client.get(path, headers=BROWSER | {"If-None-Match": '"other"'})
        assert changed.content == first.content


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("*, gzip;q=0.0", False),
        ("gzip;q=x", False),
        ("", False),
    ],
)
async def test_files_are_compressed_for_whoever_takes_it(
    serve: Serve, accepted: str, is_compressed: bool
) -> None:
    client = serve()
    response = await client.get(SCRIPT, headers={"Accept-Encoding": accepted})
    asset = asset_files()["chat.js"]
    assert response.content == asset.content
    assert (response.headers.get("content-encoding") == "gzip") is is_compressed
    sent = asset.compressed if is_compressed else asset.content
    assert response.headers["content-length"] == str(len(sent))
    assert response.headers["vary"] == "Accept-Encoding"


async def test_nothing_else_lies_below_the_page(serve: Serve) -> None:
    client = serve(api_key="sesame")
    for name in ("nothing.js", "chat.html", "%2e%2e", "chat.js%00", "CHAT.JS"):
        assert (await client.get(f"/page/{name}")).status_code == 404, name
    for path in ("/page/", "/page", "/page/..%2Fendpoints.py", "/page/a/b"):
        assert (await client.get(path)).status_code in (401, 404), path
    assert (await client.post(SCRIPT)).status_code in (401, 405)


async def test_the_page_can_be_left_out(serve: Serve) -> None:
    client = serve(page="off")
    page = await client.get("/", headers=BROWSER)
    assert "<script" not in page.text
    assert '<a href="/docs">' in page.text
    assert (await client.get(SCRIPT)).status_code == 404
    assert (await client.get("/")).text.startswith("Millstream.")
