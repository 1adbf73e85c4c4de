"""Stops an answer halfway. Closing the stream is enough: the server stops generating at once.

Usage: python openai_cancel.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

client = OpenAI(base_url=f"{base_url}/v1", api_key="not needed")
# Leaving the `with` block closes the stream. Leaving only the loop would not: the connection
# stays open, and the server goes on. Without `with`, call stream.close().
with client.chat.completions.create(
    model="default", messages=[{"role": "user", "content": "Count to 50"}], stream=True
) as stream:
    text = ""
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if len(text) >= 10:
            break
print(f"{text} ... stopped")
