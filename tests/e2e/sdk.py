"""One streamed request through each official client; all give a list of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from openai import AsyncOpenAI, OpenAI

from .wire import messages

Collect = Callable[..., list[Any]]


def openai_client(url: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", **({"max_retries": 0} | options))


def async_openai_client(url: str, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", **({"max_retries": 0} | options))


def openai_sync(url: str, content: str, **fields: Any) -> list[Any]:
    with openai_client(url) as client:
        return list(
            client.chat.completions.create(
                model="any", messages=messages(content), stream=True, **fields
            )
        )


def openai_async(url: str, content: str, **fields: Any) -> list[Any]:
    async def collect() -> list[Any]:
        async with async_openai_client(url) as client:
            stream = await client.chat.completions.create(
                model="any", messages=messages(content), stream=True, **fields
            )
            return [chunk async for chunk in stream]

    return asyncio.run(collect())


def hub_sync(url: str, content: str, **fields: Any) -> list[Any]:
    with InferenceClient(base_url=url) as client:
        return list(
            client.chat.completions.create(messages=messages(content), stream=True, **fields)
        )


def hub_async(url: str, content: str, **fields: Any) -> list[Any]:
    async def collect() -> list[Any]:
        async with AsyncInferenceClient(base_url=url) as client:
            stream = await client.chat.completions.create(
                messages=messages(content), stream=True, **fields
            )
            return [chunk async for chunk in stream]

    return asyncio.run(collect())


COLLECTORS: list[Collect] = [openai_sync, openai_async, hub_sync, hub_async]
CLIENTS_WITH_LOGPROBS = pytest.mark.parametrize(
    "collect", [openai_sync, hub_sync], ids=["openai", "hub"]
)
