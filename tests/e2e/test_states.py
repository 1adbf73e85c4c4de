"""Models whose layers keep states, over HTTP: exact in a crowd, turns cost their new tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .harness import RunningServer, wait_until
from .models import make_hybrid_model
from .test_exactness import NUM_STREAMS, ask
from .wire import LONG, EventReader

BLOCK = 16


@pytest.fixture(scope="module")
def server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("hybrid")
    flags = ["--model-id", str(make_hybrid_model(folder / "model")), "--kv-cache-memory", "64MiB"]
    running = RunningServer(flags, folder / "server.log", is_warm=True)
    fleet.append(running)
    yield running
    fleet.remove(running)
    running.stop()


async def test_sixteen_streams_equal_each_alone(server: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        alone = [await ask(client, index) for index in range(NUM_STREAMS)]
        together = await asyncio.gather(*(ask(client, index) for index in range(NUM_STREAMS)))
    assert list(together) == alone
    assert len({text for text, _ in alone}) > NUM_STREAMS // 2, "answers are all alike"


def chat(server: RunningServer, history: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    body = {"messages": history, "max_tokens": 40, "temperature": 0, **fields}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_each_turn_computes_what_is_new(server: RunningServer) -> None:
    """Six turns; of the prompt before, less than two blocks are computed again. (The answers of a
    random model do not become the same tokens again.)"""
    history = [{"role": "system", "content": "You are told many things, and say others."}]
    known = 0
    for turn in range(6):
        history.append({"role": "user", "content": f"Turn {turn}: say something about {turn * 7}."})
        result = chat(server, history)
        cached = result["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached >= known - 2 * BLOCK
        assert cached <= result["usage"]["prompt_tokens"] - 1
        known = result["usage"]["prompt_tokens"]
        answer = result["choices"][0]["message"]["content"]
        history.append({"role": "assistant", "content": answer})
    assert known > 250


def test_several_answers_share_a_prompt(server: RunningServer) -> None:
    prompt = [{"role": "user", "content": "Tell me of the sea. " * 8}]
    seeded = {"temperature": 1.0, "seed": 5}
    several = chat(server, prompt, n=3, **seeded)
    again = chat(server, prompt, n=3, **seeded)
    texts = [choice["message"]["content"] for choice in several["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert len(set(texts)) == 3
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


async def test_answers_of_a_form_are_equal_in_a_crowd(server: RunningServer) -> None:
    """A grammar masks tokens after the forward pass; what it forbids must not reach a state."""
    form = "[0-9]{3}-[a-f]{6}"
    options: dict[str, Any] = {"structured_outputs": {"regex": form}, "stop_token_ids": [2]}

    async def answer(client: httpx.AsyncClient, index: int) -> str:
        body = {"messages": [{"role": "user", "content": f"Fill in form {index}."}]}
        drawn = {"temperature": 1.0, "seed": index, "max_tokens": 200}
        fields = {**body, **drawn, **options}
        response = await client.post("/v1/chat/completions", json=fields)
        assert response.status_code == 200, response.text
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        alone = [await answer(client, index) for index in range(8)]
        together = await asyncio.gather(*(answer(client, index) for index in range(8)))
    assert list(together) == alone
    # Whoever draws the token that opens reasoning thinks to the end, and says nothing.
    said = [text for text in alone if text]
    assert len(said) >= 6
    assert all(re.fullmatch(form, text) for text in said)
    assert len(set(alone)) > 1, "answers are all alike"


def test_another_salt_shares_nothing(server: RunningServer) -> None:
    prompt = [{"role": "user", "content": "Salted words in a long row, one after the other. " * 4}]
    for salt, is_hit in (("a", False), ("a", True), ("b", False)):
        usage = chat(server, prompt, cache_salt=salt, max_tokens=4)["usage"]
        assert (usage["prompt_tokens_details"]["cached_tokens"] > 0) == is_hit


def test_who_leaves_gives_the_states_back(server: RunningServer) -> None:
    body = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": LONG}
    body |= {"ignore_eos": True}
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json=body | {"stream": True}, timeout=60
    ) as response:
        reader = EventReader(response)  # which is kept: httpx ends a stream whose reader is gone
        reader.next()
        wait_until(
            lambda: server.health()[1]["engine"]["num_states_used"] >= 1, "states are in use"
        )
    server.wait_idle()
    assert server.health()[1]["engine"]["num_states_cached"] >= 1
