"""Beyond the running and the waiting places, requests are refused at once, before any header.

The endless server has 8 + 8 places. Most tests freeze its engine while they look: requests that
were accepted then keep their places for as long as it takes, so an answer is a refusal at once.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from .harness import RunningServer, wait_until
from .sdk import openai_client
from .wire import DONE, EventReader, assert_dual_error, messages, open_stream

RUNNING, WAITING = 8, 8
PLACES = RUNNING + WAITING
CLIENTS = 64


@contextmanager
def full_server(
    server: RunningServer, *, max_tokens: int = 12
) -> Iterator[tuple[ExitStack, list[EventReader]]]:
    """All places taken by streams whose headers have come, the engine frozen.

    Closing the given stack lets the engine go on.
    """
    with ExitStack() as streams, ExitStack() as pause:
        pause.enter_context(server.paused_engine())
        opened = [
            streams.enter_context(open_stream(server, max_tokens=max_tokens)) for _ in range(PLACES)
        ]
        assert [stream.response.status_code for stream in opened] == [200] * PLACES
        assert server.health()[1]["open_requests"] == PLACES
        yield pause, opened


async def post_all(server: RunningServer, count: int, **fields: object) -> list[httpx.Response]:
    """`count` requests at once, every second one streamed, each with its whole response read."""

    async def post(index: int) -> httpx.Response:
        body = {"messages": messages("Hello"), "stream": index % 2 == 0, **fields}
        return await client.post("/v1/chat/completions", json=body)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        return await asyncio.gather(*(post(index) for index in range(count)))


def assert_refused(response: httpx.Response) -> None:
    error = assert_dual_error(response, status=429, code="overloaded")
    assert error["type"] == "rate_limit_error"
    assert response.json()["error_type"] == "overloaded"
    assert "overloaded" in error["message"]
    assert int(response.headers["retry-after"]) >= 1


# First: a server that has refused others before says to come later.
def test_openai_waits_and_succeeds_with_retries(endless_server: RunningServer) -> None:
    statuses: list[int] = []
    answers: list[str | None] = []

    def ask() -> None:
        completion = client.chat.completions.create(
            model="any", messages=messages("Hello"), max_tokens=4, temperature=0
        )
        answers.append(completion.choices[0].message.content)

    record = {"response": [lambda response: statuses.append(response.status_code)]}
    with (
        openai.DefaultHttpxClient(event_hooks=record) as http,
        openai_client(endless_server.url, max_retries=10, http_client=http) as client,
        full_server(endless_server) as (pause, _),
    ):
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        wait_until(lambda: len(statuses) > 0, "the first attempt is refused")
        pause.close()
        asking.join(timeout=60)
    assert answers == [endless_server.answer("Hello", max_tokens=4)]
    assert statuses[0] == 429
    assert statuses[-1] == 200


def test_64_clients_against_16_places_in_order(endless_server: RunningServer) -> None:
    with full_server(endless_server) as (pause, opened):
        refused = asyncio.run(post_all(endless_server, CLIENTS - PLACES))
        assert len(refused) == CLIENTS - PLACES
        for response in refused:
            assert_refused(response)
        # The refused took no place, and those inside are as before.
        assert endless_server.health()[1]["open_requests"] == PLACES
        pause.close()
        for stream in opened:
            events = stream.rest()
            assert events[-1] == DONE
            assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_64_clients_at_the_same_moment(endless_server: RunningServer) -> None:
    responses = asyncio.run(post_all(endless_server, CLIENTS, max_tokens=48, temperature=0))
    served = [response for response in responses if response.status_code == 200]
    refused = [response for response in responses if response.status_code != 200]
    assert len(served) + len(refused) == CLIENTS
    assert len(served) >= PLACES
    for response in refused:
        assert_refused(response)
    for response in served:
        if response.headers["content-type"].startswith("text/event-stream"):
            # A comment may come after it, as between any two events.
            said = response.text.replace(": ping\n\n", "")
            assert said.endswith("data: [DONE]\n\n")
        else:
            assert response.json()["usage"]["completion_tokens"] == 48


def test_exactly_the_running_places_run(endless_server: RunningServer) -> None:
    with ExitStack() as streams:
        for _ in range(PLACES):
            streams.enter_context(open_stream(endless_server))
        endless_server.wait_engine(num_running=RUNNING, num_waiting=WAITING)
        assert_refused(endless_server.chat("Hello", stream=True))


def test_a_freed_place_is_given_to_the_next(endless_server: RunningServer) -> None:
    with full_server(endless_server) as (pause, opened):
        assert_refused(endless_server.chat("Hello"))
        opened[3].response.close()
        endless_server.wait_open(PLACES - 1)
        with open_stream(endless_server, max_tokens=4) as stream:
            assert stream.response.status_code == 200
            pause.close()
            assert stream.rest()[-1] == DONE


def test_a_bad_request_takes_no_place(small_server: RunningServer) -> None:
    for _ in range(2 * 3):
        assert small_server.chat("Hello", max_tokens=0).status_code == 400
        assert small_server.chat("day " * 300).status_code == 400
    assert small_server.health()[1]["open_requests"] == 0
    assert small_server.chat("Hello").status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_openai_raises_a_rate_limit_error(stream: bool, endless_server: RunningServer) -> None:
    with full_server(endless_server), openai_client(endless_server.url) as client:
        with pytest.raises(openai.RateLimitError, match="overloaded") as caught:
            client.chat.completions.create(
                model="any", messages=messages("Hello"), max_tokens=4, stream=stream
            )
        assert caught.value.code == "overloaded"
        assert caught.value.type == "rate_limit_error"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_hub_raises_with_the_servers_words(stream: bool, endless_server: RunningServer) -> None:
    with full_server(endless_server), InferenceClient(base_url=endless_server.url) as client:
        with pytest.raises(HfHubHTTPError, match="overloaded") as caught:
            client.chat.completions.create(messages=messages("Hello"), max_tokens=4, stream=stream)
        assert caught.value.response.status_code == 429
        assert caught.value.response.headers["retry-after"]
