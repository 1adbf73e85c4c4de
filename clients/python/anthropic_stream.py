"""Prints an answer while it is generated, with anthropic; then what it cost in tokens.

Usage: python anthropic_stream.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from anthropic import Anthropic, InternalServerError

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

# A busy server answers 529. anthropic waits as long as it was told and tries again, so many times.
client = Anthropic(base_url=base_url, api_key="not needed", max_retries=5)
try:
    with client.messages.stream(
        model="default",  # the server serves one model, whatever the name
        max_tokens=1000,
        messages=[{"role": "user", "content": "Count to 10"}],
    ) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
        usage = stream.get_final_message().usage
    cached = usage.cache_read_input_tokens or 0
    print(f"\n({usage.input_tokens} + {cached} cached + {usage.output_tokens} tokens)")
except InternalServerError as error:
    sys.exit(f"The server is still busy after several attempts: {error.message}")
