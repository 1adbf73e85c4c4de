"""GET /openapi.json, GET /docs: a page that shows it, and GET /: what leads there.

Rules: the pages ask for nothing from outside; they know nothing of this server, so they need no
key; the document does.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from millstream.api.described.document import document
from millstream.api.described.route import HTML, JSON, TEXT, DescribedRoute, Handler, Operation
from millstream.settings import Settings

DOCUMENT = Operation(
    path="/openapi.json",
    method="GET",
    summary="This document",
    answers={200: {JSON: dict[str, Any]}},
)
PAGE = Operation(
    path="/docs",
    method="GET",
    summary="A page that shows this document",
    answers={200: {HTML: None}},
    is_open=True,
)
WELCOME = Operation(
    path="/",
    method="GET",
    summary="What leads to /docs: a page for browsers, a line for others",
    answers={200: {HTML: None, TEXT: None}},
    is_open=True,
)

_WELCOME_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Millstream</title>
<h1>Millstream</h1>
<p>This server speaks the OpenAI API below <code>{root}/v1</code>.
<p><a href="{root}/docs">Read and try every route</a>
</html>
"""


def with_document(routes: Sequence[DescribedRoute], settings: Settings) -> list[DescribedRoute]:
    """The routes, and those of the document that describes them all."""
    page = (
        resources.files("millstream.api.described")
        .joinpath("page.html")
        .read_text(encoding="utf-8")
    )
    headers = {"Content-Security-Policy": _policy(page)}

    @cache
    def make_document() -> bytes:
        return json.dumps(document(all_routes, settings)).encode()

    async def show_document(request: Request) -> Response:
        # Made when it is first asked for: that takes long enough to be felt at start.
        content = await run_in_threadpool(make_document)
        return Response(content, media_type=JSON)

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    own = [DOCUMENT.route(show_document), PAGE.route(show_page)]
    all_routes = [*routes, *own, WELCOME.route(_welcome(quote(settings.root_path or "")))]
    return all_routes


def _welcome(root: str) -> Handler:
    line = f"Millstream. The API is below {root}/v1; {root}/docs in a browser shows every route.\n"
    page = _WELCOME_PAGE.format(root=root)
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    async def welcome(request: Request) -> Response:
        headers = {"Vary": "Accept"}
        if HTML not in request.headers.get("accept", ""):
            return PlainTextResponse(line, headers=headers)
        return HTMLResponse(page, headers={**headers, "Content-Security-Policy": policy})

    return welcome


def _policy(page: str) -> str:
    """Only the page's own script and style run, and only this server is asked."""
    sources = ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"]
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert text is not None, f"the page has no {tag}"
        digest = base64.b64encode(sha256(text[1].encode()).digest()).decode()
        sources.append(f"{tag}-src 'sha256-{digest}'")
    return "; ".join([*sources, "frame-ancestors 'none'"])
