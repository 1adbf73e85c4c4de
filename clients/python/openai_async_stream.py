"""Asks several questions at once with openai; the server answers them side by side.

Usage: python openai_async_stream.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import asyncio
import os
import sys

from openai import AsyncOpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

PROMPTS = ["Count to 10", "Say this is a test", "What is 2 + 3?"]


async def ask(client: AsyncOpenAI, prompt: str) -> str:
    """One whole answer, read piece by piece."""
    stream = await client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": prompt}], stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def main() -> None:
    # max_retries: with more prompts than the server has places, some wait for their turn here.
    async with AsyncOpenAI(
        base_url=f"{base_url}/v1", api_key="not needed", max_retries=10
    ) as client:
        answers = await asyncio.gather(*(ask(client, prompt) for prompt in PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        print(f"{prompt} -> {answer}")


asyncio.run(main())
