"""GET /openapi.json. The page that shows it is /docs, of api/pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from millstream.api.described.document import document
from millstream.api.described.route import JSON, DescribedRoute, Operation
from millstream.settings import Settings

DOCUMENT = Operation(
    path="/openapi.json",
    method="GET",
    summary="This document",
    answers={200: {JSON: dict[str, Any]}},
)


def with_document(routes: Sequence[DescribedRoute], settings: Settings) -> list[DescribedRoute]:
    """The routes, and that of the document that describes them all."""

    @cache
    def make_document() -> bytes:
        return json.dumps(document(all_routes, settings)).encode()

    async def show_document(request: Request) -> Response:
        # Made when it is first asked for: that takes long enough to be felt at start.
        content = await run_in_threadpool(make_document)
        return Response(content, media_type=JSON)

    all_routes = [*routes, DOCUMENT.route(show_document)]
    return all_routes
