"""Sixteen streams at once answer token for token what each answers alone.

On the demo model in its default dtype and on a random model of 8 layers in float32; greedy and
seeded; streamed. Answers are compared as text and as token counts.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from .harness import RunningServer
from .wire import DONE, messages, text_of

NUM_STREAMS = 16

PROMPTS = [
    "Count to 10",
    "Count from 7 to 19",
    "Say this is a test",
    "What is 27 + 58?",
    "Which day comes after Tuesday?",
    "List the months of the year",
    "Hello! Who are you?",
    "Repeat after me: the quick brown fox jumps over the lazy dog",
]


def body(index: int) -> dict[str, Any]:
    """Request `index`: even ones greedy, odd ones seeded with sampling options."""
    fields: dict[str, Any] = {"temperature": 0}
    if index % 2:
        fields = {"temperature": 0.6 + 0.1 * (index % 4), "top_p": 0.95, "seed": 1000 + index}
        fields |= {"top_k": 50} if index % 3 else {}
    content = PROMPTS[index % len(PROMPTS)] + "!" * (index // len(PROMPTS))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return {"messages": messages(content), "max_tokens": 24 + 5 * index, **options, **fields}


async def ask(client: httpx.AsyncClient, index: int) -> tuple[str, int]:
    """The text and the number of tokens of one streamed answer."""
    async with client.stream("POST", "/v1/chat/completions", json=body(index)) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines()]
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == DONE
    usage = json.loads(events[-2])["usage"]
    return text_of(events), usage["completion_tokens"]


@pytest.mark.parametrize("name", ["demo_server", "endless_server"])
async def test_sixteen_streams_equal_each_alone(name: str, request: pytest.FixtureRequest) -> None:
    server: RunningServer = request.getfixturevalue(name)
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        alone = [await ask(client, index) for index in range(NUM_STREAMS)]
        together = await asyncio.gather(*(ask(client, index) for index in range(NUM_STREAMS)))
    assert list(together) == alone
    assert len({text for text, _ in alone}) > NUM_STREAMS // 2, "answers are all alike"


async def test_a_seed_is_what_makes_an_answer_repeat(endless_server: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=endless_server.url, timeout=120) as client:
        fields = {"messages": messages("hello"), "max_tokens": 16, "temperature": 1}

        async def answer(**more: int) -> str:
            response = await client.post("/v1/chat/completions", json=fields | more)
            text: str = response.json()["choices"][0]["message"]["content"]
            return text

        assert await answer(seed=5) == await answer(seed=5)
        assert await answer(seed=5) != await answer(seed=6)
        assert await answer() != await answer()
