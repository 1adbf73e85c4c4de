"""Lets an answer run on while nobody listens, and reads it on from where it was left, with openai.

Usage: python openai_background.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

client = OpenAI(base_url=f"{base_url}/v1", api_key="not needed")
response_id, seen = "", -1
with client.responses.create(
    model="default",
    input="Count to 10",
    background=True,  # the answer does not end with its reader
    stream=True,
) as stream:
    for event in stream:
        seen = event.sequence_number
        if event.type == "response.created":
            response_id = event.response.id
        elif event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
            if "3" in event.delta:
                break  # the connection is lost

print("\n-- taken up again --")
for event in client.responses.retrieve(response_id, stream=True, starting_after=seen):
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
print(f"\n({client.responses.retrieve(response_id).status})")
