"""What goes wrong around one request: it is told, nobody else notices, and nothing is kept."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from millstream.text.chat_prompt import ChatFormatter
from tests.api.talk import Talk, byte_tokenizer, marked_tokenizer, talk, whole

__all__ = ["byte_tokenizer", "marked_tokenizer", "talk"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_memory_that_runs_out_while_a_prompt_is_prepared(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def tokenize(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    talk.speaker.say("Hello")
    with monkeypatch.context() as patch:
        patch.setattr(ChatFormatter, "tokenize", tokenize)
        response = await talk.post(stream=stream)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "out_of_memory"
    assert "MemoryError" not in response.text
    assert whole((await talk.body())["choices"][0]).content == "Hello"


@pytest.mark.parametrize("num_tokens", [0, 2])
async def test_memory_that_runs_out_in_a_step(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, num_tokens: int
) -> None:
    """Before the first token it is a status, after it the last event."""
    compute = talk.speaker.step

    def step(plan: Any) -> Any:
        if plan.chunks[0].num_generated == num_tokens:
            raise MemoryError
        return compute(plan)

    talk.speaker.say("Hello")
    with monkeypatch.context() as patch:
        patch.setattr(talk.speaker, "step", step)
        response = await talk.post(stream=num_tokens > 0)
    assert response.status_code == (200 if num_tokens else 503)
    assert response.text.count('"out_of_memory"') == 1
    assert "[DONE]" not in response.text
    assert talk.context.engine.statistics.num_blocks_used == 0
    talk.speaker.say("Hello")
    assert whole((await talk.body())["choices"][0]).content == "Hello"


@pytest.mark.parametrize("seconds", [86_400, -86_400])
async def test_a_clock_that_is_set_ends_nothing(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    talk.speaker.say("Hello")
    now = time.time
    with talk.speaker.silent(after=2):
        asking = asyncio.create_task(talk.body(timeout=60))
        await talk.in_engine(1)
        monkeypatch.setattr(time, "time", lambda: now() + seconds)
    assert whole((await asking)["choices"][0]).content == "Hello"
    assert talk.context.engine.state.value == "ready"
