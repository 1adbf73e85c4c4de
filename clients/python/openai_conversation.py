"""Keeps a conversation on the server, with openai: each turn sends only what is new.

Usage: python openai_conversation.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

client = OpenAI(base_url=f"{base_url}/v1", api_key="not needed")
conversation = client.conversations.create(metadata={"title": "Names"})
for turn in ("My name is Anna.", "What is my name?"):
    response = client.responses.create(model="default", conversation=conversation.id, input=turn)
    print(f"{turn} -> {response.output_text}")

# All that was said, page by page, with the oldest first.
items = client.conversations.items.list(conversation.id, order="asc")
print(sum(1 for _ in items), "items are kept")
client.conversations.delete(conversation.id)  # with its items
