"""A server for the runner's tests, run as a process: /health, and as many words as asked for."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(os.environ["BODIES"], "a", encoding="utf-8") as log:
            log.write(json.dumps({"server": sys.argv[2], **body}) + "\n")
        self.send_response(200)
        self.end_headers()
        for number in range(body["max_tokens"]):
            self.event({"choices": [{"index": 0, "delta": {"content": f" w{number}"}}]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, content: object) -> None:
        self.wfile.write(b"data: %s\n\n" % json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
