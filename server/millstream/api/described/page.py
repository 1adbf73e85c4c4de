"""GET /openapi.json, and GET /docs: a page that shows it.

Rules: the page asks for nothing from outside; it knows nothing of this server, so it needs no key;
the document does.
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

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from millstream.api.described.document import document
from millstream.api.described.route import HTML, JSON, DescribedRoute, Operation
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
    all_routes = [*routes, *own]
    return all_routes


def _policy(page: str) -> str:
    """Only the page's own script and style run, and only this server is asked."""
    sources = ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"]
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert text is not None, f"the page has no {tag}"
        digest = base64.b64encode(sha256(text[1].encode()).digest()).decode()
        sources.append(f"{tag}-src 'sha256-{digest}'")
    return "; ".join([*sources, "frame-ancestors 'none'"])
