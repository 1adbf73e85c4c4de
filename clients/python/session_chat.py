"""Chats in a session that the server remembers, with httpx: its cookies are the visitor.

Usage: python session_chat.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import httpx

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")
client = httpx.Client(base_url=f"{base_url}/v1", timeout=120)
client.post("/sessions").raise_for_status()


def stream(path: str, **body: Any) -> str:
    """Prints an answer as it comes. Returns the id of its response."""
    identifier = ""
    with client.stream("POST", path, json={"stream": True, **body}) as response:
        if response.is_error:
            raise SystemExit(response.read().decode())
        for line in response.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["type"] == "queue.position":
                print(f"(waiting: {event['position']})")
            elif event["type"] == "response.created":
                identifier = event["response"]["id"]
            elif event["type"] == "response.output_text.delta":
                print(event["delta"], end="", flush=True)
    print()
    return identifier


first = stream("/chats/current/messages", content="My name is Anna.")
stream("/chats/current/messages", content="What is my name?")
# Once more, and back to the first version of the answer.
stream("/chats/current/regenerate", temperature=1)
chat = client.get("/chats/current").json()
versions = chat["messages"][-1]["versions"]
chat = client.post(f"/chats/{chat['id']}", json={"leaf": versions[0]}).json()
print(f"({len(versions)} versions of {len(chat['messages'])} messages)")
# Another question in place of the second one; the old one stays as a version.
stream("/chats/current/messages", content="Who am I?", parent=first)
chat = client.get("/chats/current").json()
print(f"({len(chat['messages'][2]['versions'])} versions of the question)")
# An answer goes on without its reader. Who comes back reads on after the last event that arrived.
body = {"content": "Count to 10.", "background": True}
begun = client.post("/chats/current/messages", json=body).json()
where = {"stream": "true", "starting_after": "0"}
with client.stream("GET", f"/responses/{begun['id']}", params=where) as events:
    last = [line for line in events.iter_lines() if line.startswith("data: ")][-1]
print(f"({json.loads(last.removeprefix('data: '))['response']['status']})")
client.delete(f"/chats/{chat['id']}")
