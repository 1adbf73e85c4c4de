"""A Hugging Face Hub on loopback, as small as huggingface_hub's downloads allow.

Serves folders as repositories over the Hub's real protocol: `GET /api/models/ID/revision/REV` and
`.../tree/COMMIT` list files, `HEAD` and `GET /ID/resolve/COMMIT/FILE` deliver them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = sha1(b"commit").hexdigest()


class FakeHub:
    """url: set HF_ENDPOINT to it. requested: every file that was asked for with GET."""

    def __init__(
        self,
        repositories: dict[str, Path],
        *,
        gated: frozenset[str] = frozenset(),
        broken: frozenset[str] = frozenset(),
    ) -> None:
        """broken: files whose delivery ends before they do."""
        self.repositories = repositories
        self.gated = gated
        self.broken = broken
        self.requested: list[str] = []
        self.tokens: set[str | None] = set()
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator[FakeHub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        self.tokens.add(request.headers.get("Authorization"))
        parts = request.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        folder = self.repositories.get(name)
        if folder is None:
            self._send(request, 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif name in self.gated:
            self._send(request, 403, b"", {"X-Error-Code": "GatedRepo"})
        elif parts[0] == "api" and parts[4] == "tree":
            tree = [
                {
                    "type": "file",
                    "path": file,
                    "oid": "0" * 40,
                    "size": (folder / file).stat().st_size,
                }
                for file in self._files(folder)
            ]
            self._send(request, 200, json.dumps(tree).encode(), {})
        elif parts[0] == "api":
            if parts[-2] == "revision" and parts[-1] not in ("main", COMMIT):
                self._send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
                return
            files = [{"rfilename": file} for file in self._files(folder)]
            body = {"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "tags": []}
            self._send(request, 200, json.dumps(body).encode(), {})
        else:
            file = "/".join(parts[4:])
            if with_body:
                self.requested.append(file)
            data = (folder / file).read_bytes()
            headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if file in self.broken:
                headers["Content-Length"] = str(len(data) + 1)
            self._send(request, 200, data, headers, with_body=with_body)

    @staticmethod
    def _files(folder: Path) -> list[str]:
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        with_body: bool = True,
    ) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)
