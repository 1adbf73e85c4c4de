"""Prints an answer while it is generated, with openai; then what it cost in tokens.

Usage: python openai_stream.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI, RateLimitError

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

# A busy server answers 429. openai waits as long as it was told and tries again, so many times.
client = OpenAI(base_url=f"{base_url}/v1", api_key="not needed", max_retries=5)
try:
    stream = client.chat.completions.create(
        model="default",  # the server serves one model, whatever the name
        messages=[{"role": "user", "content": "Count to 10"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print(f"\n({chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens)")
except RateLimitError as error:
    sys.exit(f"The server is still busy after several attempts: {error.message}")
