"""Prints an answer while it is generated, with the asynchronous client of huggingface_hub.

Usage: python hub_async_stream.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import asyncio
import os
import sys

from huggingface_hub import AsyncInferenceClient

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")


async def main() -> None:
    async with AsyncInferenceClient(base_url=base_url) as client:
        stream = await client.chat.completions.create(
            messages=[{"role": "user", "content": "Say this is a test"}],
            stream=True,
        )
        async for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


asyncio.run(main())
