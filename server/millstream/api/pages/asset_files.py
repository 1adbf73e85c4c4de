"""The files of the pages as they are built from clients/page, and how a browser gets one.

Rules: a name is looked up among those found at start, and never becomes a path; a browser asks each
time whether what it has is still right, so a new version of the server shows at once; each file
carries the policy of what a page may do: it runs the server's own scripts, asks the server and
nobody else, and is shown in nobody's frame.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache, cached_property
from hashlib import sha256
from importlib import resources
from pathlib import PurePath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from millstream.api.described.route import CSS, HTML, SCRIPT, SVG, TEXT

MEDIA_TYPES = {".html": HTML, ".js": SCRIPT, ".css": CSS, ".svg": SVG, ".txt": TEXT}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
_WORTH_COMPRESSING = 500  # bytes


class Asset:
    """One file. media: its type, without parameters."""

    def __init__(self, content: bytes, *, media: str) -> None:
        self.content = content
        self.media = media
        # Weak, because the compressed file is another one to the bit.
        self.tag = f'W/"{sha256(content).hexdigest()[:32]}"'

    @cached_property
    def compressed(self) -> bytes:
        """The content as gzip, made when it is first asked for."""
        return gzip.compress(self.content, mtime=0)

    async def answer(self, http: Request, *, vary: str = "Accept-Encoding") -> Response:
        """The file, or 304 for who has it already. vary: headers that decide what is sent."""
        headers = {
            "ETag": self.tag,
            "Cache-Control": "no-cache",
            "Vary": vary,
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if _names(http.headers.get("if-none-match", ""), self.tag):
            return Response(status_code=304, headers=headers)
        content = self.content
        if len(content) >= _WORTH_COMPRESSING and _takes_gzip(http):
            content = await run_in_threadpool(lambda: self.compressed)
            headers["Content-Encoding"] = "gzip"
        return Response(content, media_type=self.media, headers=headers)


@cache
def asset_files() -> Mapping[str, Asset]:
    """All files of the pages by their names."""
    folder = resources.files("millstream.api.pages").joinpath("assets")
    return {
        file.name: Asset(file.read_bytes(), media=MEDIA_TYPES[PurePath(file.name).suffix])
        for file in folder.iterdir()
    }


def _names(given: str, tag: str) -> bool:
    """Whether an `If-None-Match` header names the tag (RFC 9110, section 13.1.2)."""
    known = {part.strip().removeprefix("W/") for part in given.split(",")}
    return "*" in known or tag.removeprefix("W/") in known


def _takes_gzip(http: Request) -> bool:
    """Whether `Accept-Encoding` allows it (RFC 9110, section 12.5.3)."""
    weights: dict[str, float] = {}
    for part in ",".join(http.headers.getlist("accept-encoding")).lower().split(","):
        coding, _, parameter = part.partition(";")
        name, _, weight = parameter.partition("=")
        try:
            weights[coding.strip()] = float(weight) if name.strip() == "q" else 1.0
        except ValueError:
            return False
    return weights.get("gzip", weights.get("*", 0.0)) > 0
