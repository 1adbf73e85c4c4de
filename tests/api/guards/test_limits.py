"""Limits of keys over HTTP and WebSockets, in the words of each API, by a clock of the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from millstream.api.context import ServerContext
from millstream.quotas.account import ProcessLedger
from millstream.quotas.key_ring import KeyRing
from millstream.settings import Settings
from tests.api.described_transport import CheckedTransport
from tests.api.socket_client import connected
from tests.api.talk import Talk, marked_tokenizer, talk
from tests.quotas.conftest import Clock, clock
from tests.text.conftest import byte_tokenizer

__all__ = ["byte_tokenizer", "clock", "marked_tokenizer", "talk"]

KEY = "sk-test-key"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SAID = {"messages": [{"role": "user", "content": "x"}]}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: SAID,
    MESSAGES: SAID | {"model": "any", "max_tokens": 50},
    RESPONSES: {"input": "x", "store": False},
    "/v1/completions": {"prompt": "x"},
    "/generate": {"inputs": "x"},
    "/": {"inputs": "x"},
    "/vertex": {"instances": [{"inputs": "x"}]},
    "/v1/responses/compact": {"input": "x"},
}


class Limited:
    """A server with one key of a file."""

    def __init__(self, context: ServerContext, file: Path, clock: Clock) -> None:
        self.file, self.clock = file, clock
        self.write()
        settings = Settings(served_model_name="fake", api_keys_file=file, store="off")
        self.keys = KeyRing(file=file, ledger=ProcessLedger(clock))
        self.context = replace(context, settings=settings, keys=self.keys)

    def write(self, **limits: int) -> None:
        lines = [f"{name} = {value}" for name, value in limits.items()]
        text = "\n".join(["[[keys]]", 'label = "team-a"', f'key = "{KEY}"', *lines])
        self.file.write_text(text + "\n# another size " + "." * len(self.file.name) * len(lines))

    async def limit(self, **limits: int) -> None:
        self.write(**limits)
        for _ in range(2):
            await self.keys.look()

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = CheckedTransport(self.context)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            yield client

    async def ask(self, path: str = CHAT, **fields: Any) -> httpx.Response:
        async with self.http() as client:
            return await client.post(path, json=BODIES[path] | fields)


@pytest.fixture
def limited(talk: Talk, tmp_path: Path, clock: Clock) -> Limited:
    talk.speaker.say("Yes.")
    return Limited(talk.context, tmp_path / "keys.toml", clock)


def ratelimits(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if "ratelimit" in name}


async def test_answers_say_what_is_left(limited: Limited) -> None:
    assert ratelimits(await limited.ask()) == {}
    await limited.limit(requests_per_minute=120, tokens_per_minute=6000)
    whole = await limited.ask()
    used = whole.json()["usage"]["total_tokens"]
    assert ratelimits(whole) == {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "119",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": str(6000 - used),
        "x-ratelimit-reset-tokens": f"{used * 10}ms",
    }
    streamed = await limited.ask(stream=True, max_tokens=100)
    # The headers come before the answer, of which there is only a guess then.
    assert int(ratelimits(streamed)["x-ratelimit-remaining-tokens"]) < 6000 - used - 100
    assert ratelimits(streamed)["x-ratelimit-reset-requests"] == "1s"
    async with limited.http() as client:
        assert ratelimits(await client.get("/v1/models")) == {}
        assert ratelimits(await client.post("/tokenize", json={"prompt": "x"})) == {}


@pytest.mark.parametrize("path", BODIES)
async def test_each_route_that_answers_is_limited(limited: Limited, path: str) -> None:
    await limited.limit(requests_per_minute=2)
    for _ in range(2):
        response = await limited.ask(path)
        assert response.status_code == 200, response.text
    response = await limited.ask(path)
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    body = response.json()
    if path == MESSAGES:
        assert body["error"]["type"] == "rate_limit_error"
        limits = ratelimits(response)
        assert limits.pop("anthropic-ratelimit-requests-remaining") == "0"
        reset = limits.pop("anthropic-ratelimit-requests-reset")
        assert reset.endswith("Z")
        left = datetime.fromisoformat(reset) - datetime.now(UTC)
        assert 50 < left.total_seconds() <= 61
        assert limits == {"anthropic-ratelimit-requests-limit": "2"}
    elif path in ("/generate", "/", "/vertex"):
        assert body["error_type"] == "overloaded"
        assert "2 requests per minute" in body["error"]
    else:
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert (body["error"]["type"], body["error_type"]) == ("requests", "overloaded")
        assert ratelimits(response)["x-ratelimit-reset-requests"] == "1m0s"
    limited.clock.now += 30
    assert (await limited.ask(path)).status_code == 200


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, "/v1/completions", "/generate"])
async def test_tokens_are_limited_before_and_after_they_are_made(
    limited: Limited, talk: Talk, path: str
) -> None:
    await limited.limit(tokens_per_minute=30)
    talk.speaker.say("x" * 40)
    assert (await limited.ask(path)).status_code == 200
    response = await limited.ask(path)
    assert response.status_code == 429
    assert "30 tokens per minute" in response.text
    limited.clock.now += int(response.headers["retry-after"])
    long = {"messages": [{"role": "user", "content": "x" * 31}], "input": "x" * 31}
    long |= {"prompt": "x" * 31, "inputs": "x" * 31}
    fields = {name: value for name, value in long.items() if name in BODIES[path]}
    refused = await limited.ask(path, **fields)
    assert refused.status_code in (400, 422)
    assert "31 tokens" in refused.text
    assert talk.context.engine.num_open == 0


async def test_answers_at_once_of_clients_that_stay_and_leave(limited: Limited, talk: Talk) -> None:
    await limited.limit(max_concurrent_requests=2)
    with talk.speaker.silent():
        asked = [asyncio.create_task(limited.ask()) for _ in range(2)]
        while talk.context.engine.num_open < 2:  # noqa: ASYNC110, what is waited for sets no event
            await asyncio.sleep(0)
        refused = await limited.ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (await limited.ask(n=3)).status_code == 400
        asked[0].cancel()
        await asyncio.wait(asked[:1])
        third = asyncio.create_task(limited.ask())
        while talk.context.engine.num_open < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await limited.ask()).status_code == 429
    assert [(await one).status_code for one in (asked[1], third)] == [200, 200]
    counts = next(limited.keys.labelled).counts
    assert (counts.num_open, counts.num_requests) == (0, 3)


async def test_a_full_server_costs_nothing(limited: Limited, talk: Talk) -> None:
    await limited.limit(requests_per_minute=7)
    with talk.speaker.silent():
        places = talk.context.engine.open_many(talk.context.engine.max_open)
        response = await limited.ask()
        assert response.json()["error"]["code"] == "overloaded"
        assert ratelimits(response)["x-ratelimit-remaining-requests"] == "7"
        for place in places:
            place.close()
    assert (await limited.ask()).status_code == 200


async def test_answers_end_where_the_key_says(limited: Limited, talk: Talk) -> None:
    talk.speaker.say("x" * 40)
    await limited.limit(max_output_tokens=5)
    body = (await limited.ask(max_tokens=30)).json()
    assert body["usage"]["completion_tokens"] == 5
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("path", "wait"), [("/v1/responses", "30"), ("/ws", 30)])
async def test_messages_of_a_socket_are_limited(limited: Limited, path: str, wait: Any) -> None:
    await limited.limit(requests_per_minute=2)
    headers: Sequence[tuple[str, str]] = [("authorization", f"Bearer {KEY}")]

    async def last(line: Any) -> Any:
        asked = {"type": "response.create", "input": "x", "store": False}
        await line.say(json.dumps(asked if path == "/v1/responses" else {"id": 0, "text": "x"}))
        while True:
            frame = await line.hear()
            if {"error", "finish_reason"} & frame.keys() or frame.get("type") in (
                "response.completed",
                "error",
            ):
                return frame

    async with connected(limited.context, path=path, headers=headers) as line:
        for _ in range(2):
            assert "error" not in await last(line)
        refused = await last(line)
        assert refused["status"] == 429
        told = refused.get("retry_after") or refused["error"]["headers"]["retry-after"]
        assert told == wait
        assert "rate_limit_exceeded" in json.dumps(refused)
        limited.clock.now += 30
        assert "error" not in await last(line)
        limited.file.write_text('[[keys]]\nlabel = "other"\nkey = "other"')
        for _ in range(2):
            await limited.keys.look()
        assert (await last(line))["status"] == 401


async def test_only_labels_of_the_file_are_series(limited: Limited) -> None:
    await limited.limit(requests_per_minute=1)
    used = (await limited.ask()).json()["usage"]
    await limited.ask()
    async with limited.http() as client:
        lines = (await client.get("/metrics")).text.splitlines()
        await client.get("/metrics", headers={"Authorization": "Bearer wrong"})
    said = dict(line.rsplit(" ", 1) for line in lines if line.startswith("millstream_key_"))
    assert float(said['millstream_key_requests_total{key="team-a"}']) == 1
    assert float(said['millstream_key_requests_open{key="team-a"}']) == 0
    refused = 'millstream_key_refused_total{key="team-a",limit="requests"}'
    assert float(said[refused]) == 1
    made = float(said['millstream_key_tokens_total{key="team-a",kind="generated"}'])
    assert made == used["completion_tokens"]
    assert {line.split('key="')[1].split('"')[0] for line in said} == {"team-a"}
