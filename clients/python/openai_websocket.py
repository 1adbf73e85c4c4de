"""Several turns over one WebSocket, with openai: each sends only what is new.

Usage: python openai_websocket.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI
from openai.types.responses import ResponseCompletedEvent

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

client = OpenAI(base_url=f"{base_url}/v1", api_key="not needed")
previous: str | None = None
with client.responses.connect() as connection:
    for question in ("Count to 10", "Say this is a test"):
        # Not stored on the server: the connection remembers it for as long as it is open.
        connection.response.create(input=question, previous_response_id=previous, store=False)
        for event in connection:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
            elif isinstance(event, ResponseCompletedEvent):
                previous = event.response.id
                print()
                break
            elif event.type in ("error", "response.failed", "response.incomplete"):
                sys.exit(f"There was no whole answer: {event}")
