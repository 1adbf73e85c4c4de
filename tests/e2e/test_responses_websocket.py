"""Responses over WebSockets of real servers, by the official SDK and by clients of all manners."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from openai import OpenAIError
from openai.types.responses import ResponseCompletedEvent
from openai.types.responses.responses_server_event import ResponseWsError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from .harness import RunningServer, wait_until
from .sdk import async_openai_client, openai_client

ENDINGS = ("response.completed", "response.incomplete", "response.failed", "error")
LONG = 2000


@asynccontextmanager
async def dialled(server: RunningServer, **options: Any) -> AsyncIterator[ClientConnection]:
    url = server.url.replace("http", "ws", 1) + "/v1/responses"
    async with connect(url, max_size=None, **options) as client:
        yield client


async def create(client: ClientConnection, **fields: Any) -> None:
    body = {"type": "response.create", "input": "Count to 10", "temperature": 0}
    await client.send(json.dumps(body | fields))


async def hear(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), timeout=60))


async def end(client: ClientConnection) -> Any:
    """The event that ends a response."""
    while (event := await hear(client))["type"] not in ENDINGS:
        pass
    return event


async def make(client: ClientConnection, **fields: Any) -> Any:
    await create(client, **fields)
    event = await end(client)
    assert event["type"] in ("response.completed", "response.incomplete"), event
    return event["response"]


def text_of(response: Any) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


# The SDK opens connections in a way that its own dependency has since deprecated.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")
def test_the_sdk_has_a_conversation(demo_server: RunningServer) -> None:
    with openai_client(demo_server.url) as client, client.responses.connect() as connection:
        previous: str | None = None
        for question in ("Count to 10", "Say this is a test"):
            connection.response.create(
                input=question,
                model="any",
                previous_response_id=previous,
                store=False,
                temperature=0,
                max_output_tokens=60,
            )
            deltas = ""
            for event in connection:
                if event.type == "response.output_text.delta":
                    deltas += event.delta
                elif isinstance(event, ResponseCompletedEvent):
                    assert event.response.output_text == deltas
                    previous = event.response.id
                    break
        assert "this is a test" in deltas.lower()
        connection.response.create(input="x", previous_response_id="resp_none")
        event = connection.recv()
        assert isinstance(event, ResponseWsError)
        assert event.error.code == "previous_response_not_found"
        connection.response.steer(input="x", previous_response_id="resp_none")
        assert connection.recv().type == "response.steer.failed"
        connection.response.create(input="x", temperature=9)
        with pytest.raises(OpenAIError, match="temperature"):
            connection.dispatch_events()


async def test_the_asynchronous_sdk_warms_up_and_goes_on(demo_server: RunningServer) -> None:
    async with (
        async_openai_client(demo_server.url) as client,
        client.responses.connect() as connection,
    ):

        async def made(**fields: Any) -> Any:
            await connection.response.create(temperature=0, **fields)
            async for event in connection:
                if isinstance(event, ResponseCompletedEvent):
                    return event.response
            raise AssertionError

        long = "Read this. " * 40
        warm = await made(input=long, generate=False, store=False)
        assert warm.output == []
        response = await made(input="Count to 10", previous_response_id=warm.id, store=False)
        assert response.usage.input_tokens_details.cached_tokens > 16
        assert response.output_text
        stored = await made(input="Say this is a test", previous_response_id=None)
        over_http = await client.responses.create(
            model="any", input="Again", previous_response_id=stored.id
        )
        assert over_http.previous_response_id == stored.id


async def test_lanes_run_side_by_side(endless_server: RunningServer) -> None:
    async with dialled(endless_server) as client:
        for lane in "abcd":
            await create(client, stream_id=lane, max_output_tokens=400)
        seen: list[str] = []
        ended: set[str] = set()
        while len(ended) < 4:
            event = await hear(client)
            seen.append(event["stream_id"])
            if event["type"] in ENDINGS:
                assert event["type"] == "response.incomplete", event
                ended.add(event["stream_id"])
        # Not one after the other.
        changes = sum(one != other for one, other in pairwise(seen))
        assert changes > 10


async def test_whoever_closes_ends_what_runs(endless_server: RunningServer) -> None:
    async with dialled(endless_server) as client:
        for lane in "ab":
            await create(client, stream_id=lane, max_output_tokens=LONG)
        await create(client, stream_id="a", max_output_tokens=LONG)
        while (await hear(client))["type"] != "response.output_text.delta":
            pass
    await asyncio.to_thread(endless_server.wait_idle)


async def test_connections_that_break_at_any_moment_leave_nothing(
    endless_server: RunningServer,
) -> None:
    draw = random.Random(3)

    async def broken() -> None:
        async with dialled(endless_server) as client:
            for number in range(draw.randrange(1, 4)):
                fields = {"stream_id": f"lane{number}"} if draw.random() < 0.5 else {}
                await create(client, max_output_tokens=LONG, store=draw.random() < 0.5, **fields)
            for _ in range(draw.choice((0, 0, 1, 2, 5, 30))):
                await hear(client)
            client.transport.abort()

    for _ in range(12):
        await asyncio.gather(*(broken() for _ in range(4)))
    await asyncio.to_thread(endless_server.wait_idle)
    async with dialled(endless_server) as client:
        assert (await make(client, max_output_tokens=4))["status"] == "incomplete"


async def test_random_frames_get_events_or_errors(small_server: RunningServer) -> None:
    draw = random.Random(11)
    async with dialled(small_server, ping_interval=None) as client:
        await send_any(client, draw)
        await create(client, stream_id="last", max_output_tokens=1)
        while True:
            event = await hear(client)
            assert event["type"] == "error" or event["type"].startswith("response."), event
            if event["type"] == "error":
                assert event["status"] < 500, event
            if event.get("stream_id") == "last" and event["type"] in ENDINGS:
                break


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1e308, "", "x", "\0", "\u2028", [], {}, [[]], [None]),
    *([{"type": "message", "role": "user", "content": "x"}], {"id": "conv_x"}, "resp_x"),
    *([{"type": "item_reference", "id": "msg_x"}], [{"type": "function_call_output"}]),
]
NAMES = [
    *("type", "stream_id", "generate", "input", "model", "previous_response_id", "conversation"),
    *("store", "stream", "background", "tools", "tool_choice", "text", "reasoning", "include"),
    *("metadata", "truncation", "temperature", "top_logprobs", "instructions", "timeout", "x"),
]


async def send_any(client: ClientConnection, draw: random.Random) -> None:
    """500 messages of all kinds, most of them near to one that asks for a response."""
    for _ in range(500):
        body: dict[str, Any] = {"type": "response.create", "input": "x", "max_output_tokens": 1}
        for _ in range(draw.randrange(0, 3)):
            body[draw.choice(NAMES)] = draw.choice(VALUES)
        text = json.dumps(body)
        if (kind := draw.random()) < 0.1:
            text = text[: draw.randrange(len(text))]
        elif kind < 0.15:
            place = draw.randrange(len(text))
            text = text[:place] + chr(draw.randrange(1, 0xD000)) + text[place:]
        await client.send(text.encode() if kind > 0.95 else text)


async def test_a_message_that_is_too_large_is_refused(small_server: RunningServer) -> None:
    async with dialled(small_server) as client:
        await create(client, input="x" * 25_000)
        assert (await end(client))["error"]["code"] == "payload_too_large"
        await client.send(b"\0")
        assert (await end(client))["error"]["code"] == "invalid_json"
        assert (await make(client, max_output_tokens=1))["status"] == "incomplete"
        await create(client, input="x" * 45_000)
        with pytest.raises(ConnectionClosed) as closed:
            await end(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.server("--api-key", "sesame", "--graceful-termination-timeout", "60")
async def test_a_server_that_ends_lets_answers_end(own_server: RunningServer) -> None:
    key = [Subprotocol("responses"), Subprotocol("openai-insecure-api-key.sesame")]
    with pytest.raises(InvalidStatus) as refused:
        async with dialled(own_server):
            pass
    assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        async with dialled(own_server, subprotocols=key, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with dialled(own_server, subprotocols=key) as client:
        assert client.subprotocol == "responses"
        # Frozen, so that the answer is surely not over while another is asked for.
        with own_server.paused_engine():
            await create(client, stream_id="a", max_output_tokens=40)
            assert (await hear(client))["type"] == "response.created"
            own_server.signal(signal.SIGTERM)
            await asyncio.to_thread(
                wait_until, lambda: own_server.health()[0] == 503, "/health says 503"
            )
            await create(client, stream_id="b")
            while (event := await hear(client))["type"] != "error":
                assert event["stream_id"] == "a"
            assert (event["stream_id"], event["error"]["code"]) == ("b", "shutting_down")
        last = await end(client)
        assert last["type"] == "response.incomplete"
        assert last["response"]["usage"]["output_tokens"] == 40
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert await asyncio.to_thread(own_server.wait_exit) == 0
    own_server.assert_clean_log()
    log = own_server.log()
    assert "WS /v1/responses 503 " in log
    assert "WS /v1/responses 200 " in log
    assert "GET /v1/responses 101 " in log
    assert "sesame" not in log
