"""GET /: the chat page for browsers, a line for others; GET /docs: every route, to read and try;
GET /page/NAME: what the pages are made of.

Rules: the pages know nothing of this server until their scripts ask it, so they need no key; what
they name is relative to them, since nobody may have said where a proxy shows them; where somebody
has, they name the whole path, since a browser may leave out the slash at its end.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from millstream.api.described.route import (
    CSS,
    HTML,
    SCRIPT,
    SVG,
    TEXT,
    DescribedRoute,
    Handler,
    Operation,
)
from millstream.api.pages.asset_files import Asset, asset_files
from millstream.errors import NotFound
from millstream.settings import Settings

FRONT = Operation(
    path="/",
    method="GET",
    summary="A page to chat with the model, for browsers; a line for others",
    answers={200: {HTML: None, TEXT: None}, 304: {}},
    is_open=True,
)
DOCS = Operation(
    path="/docs",
    method="GET",
    summary="A page of all routes, to read and try",
    answers={200: {HTML: None}, 304: {}},
    is_open=True,
)
ASSET = Operation(
    path="/page/{name}",
    method="GET",
    summary="A file of the pages",
    answers={200: dict.fromkeys((SCRIPT, CSS, SVG, TEXT)), 304: {}},
    errors=(404,),
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
_WELCOME_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_CHAT_PAGE = "chat"


def page_routes(settings: Settings) -> list[DescribedRoute]:
    """The routes of what a browser shows. `--page off` leaves the chat page out."""
    root = quote(settings.root_path or "")
    return [
        FRONT.route(_front(root, has_page=settings.page == "on")),
        DOCS.route(_docs(root)),
        ASSET.route(_asset(settings)),
    ]


def page_at(root: str, name: str) -> Asset:
    """A page that is shown below the path `root`, which is quoted for URLs, or empty."""
    page = asset_files()[name]
    if not root:
        return page
    text = page.content.decode()
    placed = re.sub(r'((?:src|href)=")(page/|docs")', rf"\g<1>{root}/\g<2>", text)
    return Asset(placed.encode(), media=HTML)


def _front(root: str, *, has_page: bool) -> Handler:
    line = f"Millstream. The API is below {root}/v1; {root}/docs in a browser shows every route.\n"
    welcome = _WELCOME_PAGE.format(root=root)
    page = page_at(root, f"{_CHAT_PAGE}.html")

    async def front(request: Request) -> Response:
        headers = {"Vary": "Accept"}
        if HTML not in request.headers.get("accept", ""):
            return PlainTextResponse(line, headers=headers)
        if has_page:
            return await page.answer(request, vary="Accept, Accept-Encoding")
        return HTMLResponse(
            welcome, headers={**headers, "Content-Security-Policy": _WELCOME_POLICY}
        )

    return front


def _docs(root: str) -> Handler:
    page = page_at(root, "docs.html")

    async def docs(request: Request) -> Response:
        return await page.answer(request)

    return docs


def _asset(settings: Settings) -> Handler:
    served = {
        name: asset
        for name, asset in asset_files().items()
        if asset.media != HTML and (settings.page == "on" or not name.startswith(f"{_CHAT_PAGE}."))
    }

    async def answer(request: Request) -> Response:
        asset = served.get(request.path_params["name"])
        if asset is None:
            raise NotFound("the pages have no such file")
        return await asset.answer(request)

    return answer
