"""Prints an answer while it is generated, with huggingface_hub.

Usage: python hub_stream.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import os
import sys

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

# Keep the client in a variable: the stream ends when the client is garbage-collected.
client = InferenceClient(base_url=base_url)
try:
    output = client.chat.completions.create(
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Count to 10"},
        ],
        stream=True,
        max_tokens=1024,
    )
except HfHubHTTPError as error:
    # huggingface_hub does not retry by itself; a full server says when to come back.
    if error.response.status_code != 429:
        raise
    sys.exit(f"The server is busy; try again in {error.response.headers['Retry-After']} s.")

for chunk in output:
    print(chunk.choices[0].delta.content, end="", flush=True)
print()
